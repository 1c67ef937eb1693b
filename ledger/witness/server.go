package witness

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/writgate/writ/ledger/durable"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A Config says what a witness watches. All but Now and Alarm is required.
type Config struct {
	Name string             // in its signatures, a URL without a scheme, such as "witness.example/w1"
	Key  ed25519.PrivateKey // signs checkpoints and nothing else
	Logs []string           // verifier keys of the logs (c2sp.org/signed-note); a log may have several
	Dir  string             // what it has signed, one file for each log, and evidence
	Now  func() time.Time   // time.Now if nil

	// Alarm is called when a log has signed two trees of one size. File holds
	// both, unless err says why it does not.
	Alarm func(origin, file string, err error)
}

// A Server is a witness. It answers add-checkpoint, and shows the last
// checkpoint of each log that it has signed.
type Server struct {
	config Config
	signer *cosigner
	logs   map[string][]note.Verifier // by origin
	mux    http.ServeMux
	unlock func() error

	mu   sync.Mutex
	seen map[string][]byte // the last checkpoint signed, by origin, as it is in the file
}

// Open opens a witness. One process at a time may have its directory open.
func Open(c Config) (*Server, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	signer, err := newCosigner(c.Name, c.Key)
	if err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	s := &Server{config: c, signer: signer, logs: map[string][]note.Verifier{}, seen: map[string][]byte{}}
	for _, k := range c.Logs {
		v, err := note.NewVerifier(k)
		if err != nil {
			return nil, fmt.Errorf("opening the witness: the key %.80q: %w", k, err)
		}
		s.logs[v.Name()] = append(s.logs[v.Name()], v)
	}
	if err := os.MkdirAll(filepath.Join(c.Dir, "evidence"), 0o700); err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	if s.unlock, err = durable.Lock(filepath.Join(c.Dir, "lock"), false); err != nil {
		return nil, fmt.Errorf("opening the witness: %w", err)
	}
	for origin := range s.logs {
		if err := s.load(origin); err != nil {
			return nil, errors.Join(fmt.Errorf("opening the witness: what it signed for %q: %w", origin, err), s.unlock())
		}
	}
	s.mux.HandleFunc("POST /add-checkpoint", s.add)
	s.mux.HandleFunc("GET /{log}/checkpoint", s.show)
	return s, nil
}

// VerifierKey is what goes into the trust of whoever believes this witness.
func (s *Server) VerifierKey() string { return s.signer.verifierKey() }

// Close lets the directory go.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unlock()
}

// ServeHTTP implements http.Handler. A log is known by its signature and
// nothing else: there is no other authentication.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

func hashOf(origin string) string {
	h := sha256.Sum256([]byte(origin))
	return hex.EncodeToString(h[:])
}

func (s *Server) file(origin string) string { return filepath.Join(s.config.Dir, hashOf(origin)) }

// load reads what was signed last. A file that does not hold that is an error:
// to begin anew would be to forget.
func (s *Server) load(origin string) error {
	b, err := os.ReadFile(s.file(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	n, err := note.Open(b, note.VerifierList(append(slices.Clip(s.logs[origin]), s.signer)...))
	if err != nil {
		return err
	}
	if h, err := parseHead(n.Text); err != nil || h.origin != origin {
		return fmt.Errorf("a checkpoint of %.80q: %v", h.origin, err)
	}
	if len(n.Sigs) < 2 {
		return errors.New("it lacks the signature of the log, or of this witness")
	}
	s.seen[origin] = b
	return nil
}

// last is the head that was signed last; that of the empty tree if none was.
func (s *Server) last(origin string) head {
	b, ok := s.seen[origin]
	if !ok {
		return head{origin, 0, emptyRoot}
	}
	text, err := textOf(b)
	if err != nil {
		panic(err) // cannot be: it was verified before it was kept
	}
	h, err := parseHead(text)
	if err != nil {
		panic(err) // nor this
	}
	return h
}

var emptyRoot = tlog.Hash(sha256.Sum256(nil))

// A refusal is an answer that is not a signature.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return r.text }

// read takes a submission, and finds out whose checkpoint it is and whether
// they signed it.
func (s *Server) read(body []byte) (*submission, *note.Note, head, error) {
	sub, err := parseSubmission(body)
	if err != nil {
		return nil, nil, head{}, &refusal{http.StatusBadRequest, err.Error()}
	}
	text, err := textOf(sub.note)
	if err != nil {
		return nil, nil, head{}, &refusal{http.StatusBadRequest, err.Error()}
	}
	origin, _, _ := strings.Cut(text, "\n")
	keys := s.logs[origin]
	if keys == nil {
		return nil, nil, head{}, &refusal{http.StatusNotFound, "a log that this witness does not watch"}
	}
	n, err := note.Open(sub.note, note.VerifierList(keys...))
	if err != nil {
		_, none := errors.AsType[*note.UnverifiedNoteError](err)
		_, bad := errors.AsType[*note.InvalidSignatureError](err)
		if none || bad {
			return nil, nil, head{}, &refusal{http.StatusForbidden, "not signed by the log"}
		}
		return nil, nil, head{}, &refusal{http.StatusBadRequest, err.Error()}
	}
	h, err := parseHead(n.Text)
	if err == nil && sub.old > h.size {
		err = errors.New("the old size is above that of the checkpoint")
	}
	if err != nil {
		return nil, nil, head{}, &refusal{http.StatusBadRequest, err.Error()}
	}
	return &sub, n, h, nil
}

// add is add-checkpoint.
func (s *Server) add(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, "the body is too long, or was cut off", http.StatusBadRequest)
		return
	}

	// 1. Whose checkpoint is it, and did they sign it?
	sub, n, h, err := s.read(body)
	if bad, ok := errors.AsType[*refusal](err); ok {
		http.Error(w, bad.text, bad.code)
		return
	}

	// 2. Does it go on from the last one that was signed?
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.last(h.origin)
	if h.size == last.size && h.root != last.root {
		s.prove(h.origin, n)
	}
	if sub.old != last.size {
		w.Header().Set("Content-Type", "text/x.tlog.size")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, "%d\n", last.size)
		return
	}
	if !goesOn(last, h, sub.proof) {
		s.suspect(h.origin, n)
		http.Error(w, "not consistent with what was signed before", http.StatusUnprocessableEntity)
		return
	}

	// 3. Remember it, then sign it.
	line := s.signer.sign(n.Text, s.config.Now().Unix())
	signed, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs})
	if signed = append(signed, line...); err == nil {
		err = durable.Write(s.file(h.origin), signed)
	}
	if err != nil {
		http.Error(w, "the checkpoint cannot be kept", http.StatusInternalServerError)
		return
	}
	s.seen[h.origin] = signed
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	io.WriteString(w, line)
}

// goesOn says whether the tree of next has that of last as its beginning.
func goesOn(last, next head, proof tlog.TreeProof) bool {
	switch {
	case next.size == 0:
		return next.root == emptyRoot && len(proof) == 0
	case last.size == 0:
		return len(proof) == 0
	case last.size == next.size:
		return next.root == last.root && len(proof) == 0
	}
	return tlog.CheckTree(proof, next.size, next.root, last.size, last.root) == nil
}

// maxEvidence bounds what a log can make a witness write.
const maxEvidence = 1000

// prove keeps two trees of one size that the log has signed: proof by itself
// that it shows different histories, whoever brought it. The same proof is
// kept once, and raises one alarm.
func (s *Server) prove(origin string, n *note.Note) {
	b, err := s.both(origin, n)
	file := filepath.Join(s.config.Dir, "evidence", hashOf(string(b))[:32])
	if _, err := os.Stat(file); err == nil {
		return
	}
	had, rerr := os.ReadDir(filepath.Dir(file))
	if err = errors.Join(err, rerr); err == nil && len(had) < maxEvidence {
		err = durable.Write(file, b)
	}
	if s.config.Alarm != nil {
		s.config.Alarm(origin, file, err)
	}
}

// suspect keeps the last submission that did not prove that it goes on. That
// may be a fork, and it may be somebody who has a checkpoint of the log and
// makes up a proof: no alarm is raised, and an error is only a loss.
func (s *Server) suspect(origin string, n *note.Note) {
	if b, err := s.both(origin, n); err == nil {
		durable.Write(filepath.Join(s.config.Dir, "evidence", "suspect-"+hashOf(origin)), b)
	}
}

// both is the checkpoint that was signed, an empty line, and the other one.
func (s *Server) both(origin string, n *note.Note) ([]byte, error) {
	b, err := note.Sign(&note.Note{Text: n.Text, Sigs: n.Sigs}) // what else there is, anybody may have added
	return append(append(slices.Clip(s.seen[origin]), '\n'), b...), err
}

// show gives the last checkpoint that was signed, to monitors.
func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for origin, b := range s.seen {
		if hashOf(origin) == r.PathValue("log") {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Write(b)
			return
		}
	}
	http.Error(w, "nothing was signed for this log", http.StatusNotFound)
}
