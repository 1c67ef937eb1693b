package gate

import (
	"errors"
	"fmt"
	"strings"

	"github.com/writgate/writ"
	"github.com/writgate/writ/canon"
)

// redacted stands where a policy's @redact takes something out.
const redacted = `"[redacted]"`

// redact does to a result what the policies that permit it oblige to. Each
// pointer leads into the structured result; the text beside it, which says the
// same again, is made anew from what is left. A result that has no structure
// cannot be redacted, and is withheld: nobody knows what its text holds.
func redact(body []byte, obligations []writ.Obligation) ([]byte, error) {
	if len(obligations) == 0 {
		return body, nil
	}
	v, err := canon.Parse(body, resultLimits)
	if err != nil {
		return nil, err
	}
	s := v.Get("structuredContent")
	if s.Kind() != canon.Object {
		return nil, errors.New("the result has no structure to redact")
	}
	for name := range v.Members() {
		switch name {
		case "structuredContent", "content", "isError", "resultType", "_meta":
		default:
			return nil, fmt.Errorf("the result has a member %.40q, which is not redacted", name)
		}
	}
	var changes []canon.Change
	for _, o := range obligations {
		at := strings.LastIndexByte(o.Redact, '/')
		if at < 0 || s.Pointer(o.Redact) == nil {
			continue // there is nothing to take out
		}
		parent := s.Pointer(o.Redact[:at])
		if parent.Kind() != canon.Object {
			return nil, fmt.Errorf("%s is not a member of an object, and is not redacted", o.Redact)
		}
		name := strings.NewReplacer("~1", "/", "~0", "~").Replace(o.Redact[at+1:])
		changes = append(changes, canon.Change{In: parent, Name: name, Value: redacted})
	}
	left, err := canon.Splice(s, changes...)
	if err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, `[{"type":"text","text":%s}]`, encode(string(left)))
	whole := []canon.Change{
		{In: v, Name: "structuredContent", Value: writ.JSON(left)},
		{In: v, Name: "content", Value: writ.JSON(text)},
	}
	if v.Get("_meta") != nil {
		whole = append(whole, canon.Change{In: v, Name: "_meta"})
	}
	return canon.Splice(v, whole...)
}
