package canon

import (
	"encoding/json"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func rat(t *rapid.T, lexeme string) *big.Rat {
	r, ok := new(big.Rat).SetString(lexeme)
	if !ok {
		t.Fatalf("%q is not a number", lexeme)
	}
	return r
}

// drawAccepted draws a number that Parse accepts.
func drawAccepted(t *rapid.T, label string) string {
	return genNumber.Filter(func(s string) bool {
		_, err := Parse([]byte(s), Limits{})
		return err == nil
	}).Draw(t, label)
}

func TestNumberProperties(t *testing.T) {
	t.Run("H16/same_text_same_decimal", rapid.MakeCheck(func(t *rapid.T) {
		x, y := drawAccepted(t, "x"), drawAccepted(t, "y")
		v, _ := Parse([]byte(x), Limits{})
		w, _ := Parse([]byte(y), Limits{})
		if v.JSON() == w.JSON() && rat(t, x).Cmp(rat(t, y)) != 0 {
			t.Fatalf("%s and %s have one text", x, y)
		}
		if rat(t, string(v.JSON())).Cmp(rat(t, x)) != 0 {
			t.Fatalf("%s became %s", x, v.JSON())
		}
	}))
	t.Run("H16/compare", rapid.MakeCheck(func(t *rapid.T) {
		x := drawAccepted(t, "x")
		y := rapid.OneOf(rapid.Just(x), rapid.Just(x+"0"), rapid.Just(x+"e0"), genNumber).Draw(t, "y")
		if !json.Valid([]byte(y)) {
			t.Skip("no number")
		}
		got, ok := Compare(x, y)
		if !ok {
			t.Skip("too long")
		}
		if want := rat(t, x).Cmp(rat(t, y)); got != want || SameNumber(x, y) != (want == 0) {
			t.Fatalf("Compare(%s, %s) = %d, want %d", x, y, got, want)
		}
	}))
	t.Run("H16/scaled", rapid.MakeCheck(func(t *rapid.T) {
		x, places := drawAccepted(t, "x"), rapid.IntRange(-3, 6).Draw(t, "places")
		ten := new(big.Rat).SetInt64(10)
		want := rat(t, x)
		for range max(places, -places) {
			if places > 0 {
				want.Mul(want, ten)
			} else {
				want.Quo(want, ten)
			}
		}
		fits := want.IsInt() && want.Num().IsInt64()
		if got, ok := Scaled(x, places); ok != fits || ok && got != want.Num().Int64() {
			t.Fatalf("Scaled(%s, %d) = %d, %v, want %s", x, places, got, ok, want)
		}
	}))
	// What is accepted with a fraction or an exponent is what a float64 says:
	// a decoder to floats that prints the shortest form loses nothing.
	t.Run("H16/survives_float64", rapid.MakeCheck(func(t *rapid.T) {
		x := genNumber.Draw(t, "x")
		f, err := strconv.ParseFloat(x, 64)
		shortest := strconv.FormatFloat(f, 'e', -1, 64)
		survives := err == nil && rat(t, shortest).Cmp(rat(t, x)) == 0 && shortest != "-0e+00"
		_, refused := Parse([]byte(x), Limits{})
		switch integer := !strings.ContainsAny(x, ".eE"); {
		case integer && (refused == nil) != (x != "-0" && len(strings.TrimPrefix(x, "-")) <= 38):
			t.Fatalf("Parse(%s) = %v", x, refused)
		case !integer && refused == nil && !survives:
			t.Fatalf("Parse(%s) accepts, and its float64 is %s", x, shortest)
		case !integer && refused != nil && survives && len(x) <= maxDigits:
			t.Fatalf("Parse(%s) = %v, and its float64 is the same", x, refused)
		}
	}))
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		lexeme string
		places int
		want   int64
		ok     bool
	}{
		{"0", 0, 0, true}, {"1.0", 0, 1, true}, {"1e3", 0, 1000, true}, {"1.5", 0, 0, false}, {"10e-1", 0, 1, true},
		{"9223372036854775807", 0, 1<<63 - 1, true}, {"9223372036854775808", 0, 0, false},
		{"-9223372036854775808", 0, -1 << 63, true}, {"-9223372036854775809", 0, 0, false},
		{"9999999999999999999", 0, 0, false}, {"1e19", 0, 0, false}, {"1e9999", 0, 0, false}, {"1e-9999", 0, 0, false},
		{"1.25", 2, 125, true}, {"1.255", 2, 0, false}, {"0.0001", 4, 1, true}, {"922337203685477.5807", 4, 1<<63 - 1, true},
		{"0e9999", 0, 0, true}, {"-0", 0, 0, true}, {"1200", -2, 12, true},
		{"", 0, 0, false}, {"x", 0, 0, false}, {"01", 0, 0, false}, {"1.", 0, 0, false}, {"+1", 0, 0, false}, {"1 ", 0, 0, false},
		{"-", 0, 0, false}, {"1e", 0, 0, false}, {"NaN", 0, 0, false}, {"1e10000", 0, 0, false}, {strings.Repeat("1", 39), 0, 0, false},
	} {
		if got, ok := Scaled(c.lexeme, c.places); got != c.want || ok != c.ok {
			t.Errorf("H16: Scaled(%q, %d) = %d, %v, want %d, %v", c.lexeme, c.places, got, ok, c.want, c.ok)
		}
		if c.places != 0 {
			continue
		}
		if got, ok := Int64(c.lexeme); got != c.want || ok != c.ok {
			t.Errorf("H16: Int64(%q) = %d, %v, want %d, %v", c.lexeme, got, ok, c.want, c.ok)
		}
	}
	for _, bad := range []string{"", "x", "1.", "0x1", "1e99999"} {
		if SameNumber(bad, bad) {
			t.Errorf("H16: SameNumber(%q, itself) is true, and it is no number", bad)
		}
		if _, ok := Compare("1", bad); ok {
			t.Errorf("H16: Compare(1, %q) is ok", bad)
		}
	}
}
