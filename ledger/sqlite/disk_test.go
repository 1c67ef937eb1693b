package sqlite

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// A disk stands between SQLite and the files of one directory. It knows what
// of them is durable, and what has been written since the last sync and may
// be lost, in part and in any order, when the power fails. It can fail any
// operation, and it can stop.
type disk struct {
	dir string

	mu    sync.Mutex
	ops   int
	fail  func(op, file string, n int) int32 // called with the number of each operation, from 1; not 0 fails it
	files map[string]*image
	dead  bool
}

type image struct {
	durable []byte
	pending []change // since the last sync
}

// A change is bytes written at an offset, or, if they are nil, the size of
// the file.
type change struct {
	at    int64
	bytes []byte
}

// watch puts a disk under the files that will be in dir.
func watch(t *testing.T, dir string) *disk {
	t.Helper()
	shim.once.Do(register)
	d := &disk{dir: dir, files: map[string]*image{}}
	shim.disks.Store(dir, d)
	t.Cleanup(func() { shim.disks.Delete(dir) })
	return d
}

// op counts an operation, and says how it fails.
func (d *disk) op(name, file string) int32 {
	d.ops++
	if d.dead {
		return lib.SQLITE_IOERR
	}
	if d.fail != nil {
		return d.fail(name, filepath.Base(file), d.ops)
	}
	return 0
}

func (d *disk) image(file string) *image {
	im := d.files[file]
	if im == nil {
		im = &image{}
		im.durable, _ = os.ReadFile(file)
		d.files[file] = im
	}
	return im
}

// after is the directory as it may be found after the power has failed: what
// was synced, and of the rest any part, sector by sector.
func (d *disk) after(t *testing.T, rnd *rand.Rand) string {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	dir := t.TempDir()
	for file, im := range d.files {
		b := bytes.Clone(im.durable)
		for _, c := range im.pending {
			if rnd.IntN(2) == 0 {
				b = c.apply(b, rnd)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(file)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// apply applies c to b, if rnd is not nil only some of its sectors.
func (c *change) apply(b []byte, rnd *rand.Rand) []byte {
	const sector = 512
	if c.bytes == nil {
		return append(b, make([]byte, max(0, c.at-int64(len(b))))...)[:c.at]
	}
	for i := 0; i < len(c.bytes); i += sector {
		if rnd != nil && rnd.IntN(8) == 0 {
			continue
		}
		part := c.bytes[i:min(i+sector, len(c.bytes))]
		end := c.at + int64(i+len(part))
		b = append(b, make([]byte, max(0, end-int64(len(b))))...)
		copy(b[end-int64(len(part)):], part)
	}
	return b
}

// shim is a VFS like the one it covers, save for what disks watch. It is the
// default in this test's process.
var shim struct {
	once    sync.Once
	below   uintptr // the VFS below
	open    uintptr // its functions
	remove  uintptr
	write   uintptr // shimWrite, as SQLite calls it
	trunc   uintptr
	sync    uintptr
	methods sync.Map // of uintptr, the methods below, to uintptr, ours
	disks   sync.Map // of directory to *disk
	files   sync.Map // of uintptr, a file as SQLite knows it, to opened
	keep    []any    // what only SQLite points to
}

type opened struct {
	path  string
	below *lib.Tsqlite3_io_methods // copied
}

func register() {
	tls := libc.NewTLS()
	shim.below = lib.Xsqlite3_vfs_find(tls, 0)
	vfs := *at[lib.Tsqlite3_vfs](shim.below)
	shim.open, shim.remove = vfs.FxOpen, vfs.FxDelete
	shim.write, shim.trunc, shim.sync = pointer(shimWrite), pointer(shimTruncate), pointer(shimSync)
	name, err := libc.CString("shim")
	if err != nil {
		panic(err)
	}
	vfs.FzName, vfs.FxOpen, vfs.FxDelete = name, pointer(shimOpen), pointer(shimDelete)
	if rc := lib.Xsqlite3_vfs_register(tls, outside(tls, vfs), 1); rc != 0 {
		panic("the shim cannot be registered")
	}
}

// outside puts v where Go's memory is not, as SQLite does arithmetic on it.
func outside[T any](tls *libc.TLS, v T) uintptr {
	p := libc.Xmalloc(tls, lib.Tsize_t(unsafe.Sizeof(v)))
	*at[T](p) = v
	return p
}

// at is what is at an address of SQLite's.
func at[T any](p uintptr) *T { return *(**T)(unsafe.Pointer(&p)) }

// pointer is a function as SQLite calls it.
func pointer(f any) uintptr {
	shim.keep = append(shim.keep, f)
	return (*[2]uintptr)(unsafe.Pointer(&f))[1]
}

func function[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&struct{ uintptr }{p})) }

func shimOpen(tls *libc.TLS, _, name, file uintptr, flags int32, out uintptr) int32 {
	open := function[func(*libc.TLS, uintptr, uintptr, uintptr, int32, uintptr) int32](shim.open)
	rc := open(tls, shim.below, name, file, flags, out)
	if rc != 0 || name == 0 {
		return rc
	}
	path := libc.GoString(name)
	if _, ok := shim.disks.Load(filepath.Dir(path)); !ok {
		return rc
	}
	f := at[lib.Tsqlite3_file](file)
	below := *at[lib.Tsqlite3_io_methods](f.FpMethods)
	shim.files.Store(file, opened{path, &below})
	m, ok := shim.methods.Load(f.FpMethods)
	if !ok {
		mine := below
		mine.FxWrite, mine.FxTruncate, mine.FxSync = shim.write, shim.trunc, shim.sync
		m, _ = shim.methods.LoadOrStore(f.FpMethods, outside(tls, mine))
	}
	f.FpMethods = m.(uintptr)
	return rc
}

// shimDelete deletes at once: a name that is gone does not come back.
func shimDelete(tls *libc.TLS, _, name uintptr, sync int32) int32 {
	path := libc.GoString(name)
	if v, ok := shim.disks.Load(filepath.Dir(path)); ok {
		d := v.(*disk)
		d.mu.Lock()
		defer d.mu.Unlock()
		if rc := d.op("delete", path); rc != 0 {
			return rc
		}
		delete(d.files, path)
	}
	return function[func(*libc.TLS, uintptr, uintptr, int32) int32](shim.remove)(tls, shim.below, name, sync)
}

// watched calls fn with the disk that a file is on.
func watched(file uintptr, op string, fn func(*image, *lib.Tsqlite3_io_methods) int32) int32 {
	v, _ := shim.files.Load(file)
	o := v.(opened)
	v, _ = shim.disks.Load(filepath.Dir(o.path))
	d, ok := v.(*disk)
	if !ok { // the test is over
		return fn(&image{}, o.below)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	im := d.image(o.path)
	if rc := d.op(op, o.path); rc != 0 {
		return rc
	}
	return fn(im, o.below)
}

func shimWrite(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32 {
	return watched(file, "write", func(im *image, below *lib.Tsqlite3_io_methods) int32 {
		im.pending = append(im.pending, change{off, bytes.Clone(unsafe.Slice(at[byte](buf), n))})
		return function[func(*libc.TLS, uintptr, uintptr, int32, int64) int32](below.FxWrite)(tls, file, buf, n, off)
	})
}

func shimTruncate(tls *libc.TLS, file uintptr, size int64) int32 {
	return watched(file, "truncate", func(im *image, below *lib.Tsqlite3_io_methods) int32 {
		im.pending = append(im.pending, change{size, nil})
		return function[func(*libc.TLS, uintptr, int64) int32](below.FxTruncate)(tls, file, size)
	})
}

// shimSync syncs nothing: what is durable is what the disk says.
func shimSync(_ *libc.TLS, file uintptr, _ int32) int32 {
	return watched(file, "sync", func(im *image, _ *lib.Tsqlite3_io_methods) int32 {
		for _, c := range im.pending {
			im.durable = c.apply(im.durable, nil)
		}
		im.pending = nil
		return 0
	})
}

func isWAL(file string) bool { return strings.HasSuffix(file, "-wal") }
