package canon

import (
	"bytes"
	"cmp"
	"math"
	"strconv"
	"strings"
)

// maxDigits is how many digits a number may be written with, exponent aside:
// what a database's decimal(38) holds.
const maxDigits = 38

// number passes the number at p.pos, and refuses one that does not survive.
func (p *parser) number() *Error {
	n, integer := scanNumber(p.src[p.pos:])
	if n == 0 {
		return p.fail(InvalidJSON, "not a number", p.pos)
	}
	if !exact(p.src[p.pos:p.pos+n], integer) {
		return p.fail(NumberNotExact, "", p.pos)
	}
	p.pos += n
	return nil
}

// scanNumber gives the length of the longest number (RFC 8259 §6) that s
// begins with, 0 if there is none, and whether it is written as an integer.
func scanNumber(s string) (n int, integer bool) {
	i := 0
	if i < len(s) && s[i] == '-' {
		i++
	}
	switch whole := digits(s[i:]); {
	case whole == 0:
		return 0, false
	case s[i] == '0':
		i++
	default:
		i += whole
	}
	integer = true
	if i < len(s) && s[i] == '.' {
		fraction := digits(s[i+1:])
		if fraction == 0 {
			return i, true
		}
		i += 1 + fraction
		integer = false
	}
	if i < len(s) && s[i]|0x20 == 'e' {
		j := i + 1
		if j < len(s) && (s[j] == '+' || s[j] == '-') {
			j++
		}
		if exponent := digits(s[j:]); exponent > 0 {
			return j + exponent, false
		}
	}
	return i, integer
}

// digits counts the digits that s begins with.
func digits(s string) int {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return i
		}
	}
	return len(s)
}

// exact reports whether every sound decoder reads lexeme, a number, as the
// same: an integer of at most 38 digits, or a decimal that is the shortest
// form of its float64, and no negative zero.
func exact(lexeme string, integer bool) bool {
	if integer && len(lexeme) <= maxDigits {
		return lexeme != "-0"
	}
	d, ok := parseDecimal(lexeme)
	if !ok || d.n == 0 && d.negative {
		return false
	}
	// Any decimal of 15 digits in the normal range survives (DBL_DIG).
	if integer || d.n <= 15 && -290 <= d.exp && d.exp+d.n <= 290 {
		return true
	}
	f, err := strconv.ParseFloat(lexeme, 64)
	if err != nil {
		return false
	}
	var room [32]byte
	shortest, ok := parseDecimal(string(strconv.AppendFloat(room[:0], f, 'e', -1, 64)))
	return ok && shortest == d
}

// A decimal is digits × 10^exp, in the one form that its value has: no zeros
// lead or trail; zero has no digits and exponent 0.
type decimal struct {
	negative bool
	digits   [maxDigits]byte
	n        int // digits in use
	exp      int
}

// parseDecimal reads a number of at most 38 digits, with an exponent of at
// most four.
func parseDecimal(lexeme string) (d decimal, ok bool) {
	if n, _ := scanNumber(lexeme); n == 0 || n != len(lexeme) {
		return decimal{}, false
	}
	written, fraction := 0, false
	for i := range len(lexeme) {
		switch c := lexeme[i]; {
		case c == '-':
			d.negative = true
		case c == '.':
			fraction = true
		case c|0x20 == 'e':
			e := lexeme[i+1:]
			if len(strings.TrimLeft(e, "+-")) > 4 {
				return decimal{}, false
			}
			exp, _ := strconv.Atoi(e)
			d.exp += exp
			return d.normal(), true
		default:
			if written++; written > maxDigits {
				return decimal{}, false
			}
			if fraction {
				d.exp--
			}
			if c != '0' || d.n > 0 {
				d.digits[d.n] = c
				d.n++
			}
		}
	}
	return d.normal(), true
}

// normal drops the zeros that trail.
func (d decimal) normal() decimal {
	for d.n > 0 && d.digits[d.n-1] == '0' {
		d.n--
		d.digits[d.n] = 0
		d.exp++
	}
	if d.n == 0 {
		d.exp = 0
	}
	return d
}

func (d decimal) sign() int {
	switch {
	case d.n == 0:
		return 0
	case d.negative:
		return -1
	}
	return 1
}

// Compare orders two numbers by value, exactly: -1 if a < b, 0 if they are
// equal, +1 if a > b. It is not ok if either is no JSON number, has more than
// 38 digits, or more than four of exponent.
func Compare(a, b string) (order int, ok bool) {
	x, okX := parseDecimal(a)
	y, okY := parseDecimal(b)
	if !okX || !okY {
		return 0, false
	}
	if x.sign() != y.sign() || x.n == 0 {
		return cmp.Compare(x.sign(), y.sign()), true
	}
	magnitude := cmp.Or(
		cmp.Compare(x.n+x.exp, y.n+y.exp),
		bytes.Compare(x.digits[:x.n], y.digits[:y.n])) // no zeros trail: a prefix is less
	return x.sign() * magnitude, true
}

// SameNumber reports whether two numbers are one value, however they are
// written: 1, 1.0 and 10e-1 are. What Compare cannot read is the same as
// nothing.
func SameNumber(a, b string) bool {
	order, ok := Compare(a, b)
	return ok && order == 0
}

// Int64 gives a number that is an integer, however it is written: 1e3 and 1.0
// are. It is not ok if the number is none, or does not fit.
func Int64(lexeme string) (int64, bool) { return Scaled(lexeme, 0) }

// Scaled gives a number times 10^places: 1.25 with two places is 125. It is
// not ok if that is not an integer that fits: nothing is ever rounded.
func Scaled(lexeme string, places int) (int64, bool) {
	d, ok := parseDecimal(lexeme)
	if !ok || d.n == 0 {
		return 0, ok
	}
	zeros := d.exp + places
	if zeros < 0 || d.n+zeros > 19 {
		return 0, false
	}
	u := uint64(0) // of at most 19 digits, which fit
	for _, c := range d.digits[:d.n] {
		u = u*10 + uint64(c-'0')
	}
	for range zeros {
		u *= 10
	}
	switch {
	case d.negative && u <= 1<<63:
		return int64(-u), true
	case d.negative || u > math.MaxInt64:
		return 0, false
	}
	return int64(u), true
}
