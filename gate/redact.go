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

// member finds the object that a pointer's last name is a member of; nil if
// there is none. If the way there leads through anything but objects, such as
// a list, the result is not what the policy's author took it for, and what was
// to be taken out may stand anywhere in it.
func member(s *canon.Value, pointer string) (in *canon.Value, name string, err error) {
	tokens := strings.Split(pointer, "/")[1:]
	for i, token := range tokens {
		switch s.Kind() {
		case canon.Object:
		case canon.Absent, canon.Null:
			return nil, "", nil
		default:
			return nil, "", fmt.Errorf("%s leads through what is no object, and is not redacted", pointer)
		}
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(token)
		if i == len(tokens)-1 && s.Get(name) != nil {
			return s, name, nil
		}
		s = s.Get(name)
	}
	return nil, "", nil
}

// redact does to a result what the policies that permit it oblige to. Each
// pointer leads into the structured result; the text beside it, which says the
// same again, is made anew from what is left. A result that has no structure
// cannot be redacted, and is withheld: nobody knows what its text holds. So is
// one whose structure is another than the pointer speaks of.
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
		in, name, err := member(s, o.Redact)
		if err != nil {
			return nil, err
		}
		if in != nil {
			changes = append(changes, canon.Change{In: in, Name: name, Value: redacted})
		}
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
