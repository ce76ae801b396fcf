package zone_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/streamhouse/streamhouse/broker/zone"
)

func at(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4711} }

func mapOf(t testing.TB, text string) zone.Map {
	t.Helper()
	m, err := zone.ParseMap(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTags(t *testing.T) {
	t.Parallel()
	f := zone.NewFinder("own", zone.Map{})
	for _, test := range []struct{ id, zone string }{
		{"zone=a", "a"},
		{"zone=us-east-1a,app", "us-east-1a"},
		{"app,zone=use1-az1", "use1-az1"},
		{"app zone=a", "a"},
		{"app;zone=a;x=y", "a"},
		{"app|x=y&zone=a&b", "a"},
		{"app,\tzone=europe-west1_b", "europe-west1_b"},
		{"warpstream_az=us-east-1a", "us-east-1a"},
		{"ws_az=use1-az2,my-pod-1", "use1-az2"},
		{"ws_pas=equal_spread,warpstream_az=eu-south-2a,ws_pt=proxy-produce", "eu-south-2a"},
		{"my-producer,diskless_az=use1-az1", "use1-az1"},
		{"aaa=bbb, diskless_az=az1", "az1"},
		{"loadtest;inkless_az=az1", "az1"},
		{"inkless_az=az1, aaa=bbb", "az1"},
		{"zone=a,zone=b", "a"},
		{"zone=,ws_az=b", "b"},
		{"zone=a=b", "a=b"},

		{"", ""},
		{"zone", ""},
		{"zone=", ""},
		{"=a", ""},
		{"app", ""},
		{"my-zone=a", ""},
		{"my_zone=a", ""},
		{"Zone=a", ""},
		{"ZONE=a", ""},
		{"zone =a", ""},
		{",,;;  ", ""},
		{"x=zone=a", ""},
		{"zone=" + strings.Repeat("a", 256), ""},
	} {
		want, known := test.zone, true
		if want == "" {
			want, known = "own", false
		}
		if got, ok := f.Of(test.id, at("10.0.0.1")); got != want || ok != known {
			t.Errorf("%q: zone %q, %v; want %q, %v", test.id, got, ok, want, known)
		}
	}
}

func TestSubnets(t *testing.T) {
	t.Parallel()
	f := zone.NewFinder("own", mapOf(t, "a=10.0.0.0/8,2001:db8::/32; b=10.1.0.0/16 ;c=10.1.2.3/32,2001:db8:1::/48"))
	for ip, want := range map[string]string{
		"10.0.0.1": "a", "10.1.0.1": "b", "10.1.2.3": "c", "10.1.2.4": "b", "::ffff:10.1.2.3": "c",
		"2001:db8::1": "a", "2001:db8:1::1": "c",
		"192.168.0.1": "", "2001:db9::1": "",
	} {
		known := want != ""
		if !known {
			want = "own"
		}
		if got, ok := f.Of("app", at(ip)); got != want || ok != known {
			t.Errorf("%s: zone %q, %v; want %q", ip, got, ok, want)
		}
		if got, ok := f.Of("zone=x", at(ip)); got != "x" || !ok {
			t.Errorf("%s with a tag: zone %q, %v", ip, got, ok)
		}
	}
	for _, addr := range []net.Addr{nil, &net.UnixAddr{Name: "socket"}, (*net.TCPAddr)(nil), &net.TCPAddr{}} {
		if got, ok := f.Of("app", addr); got != "own" || ok {
			t.Errorf("%v: zone %q, %v", addr, got, ok)
		}
	}
}

func TestParseMap(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                         "",
		" ; ":                      "",
		"b=10.0.0.0/8;a=::/0":      "a=::/0;b=10.0.0.0/8",
		"a = 10.0.0.0/8, ::/0 ;":   "a=10.0.0.0/8,::/0",
		"a=10.0.0.0/8,10.0.0.0/16": "a=10.0.0.0/16,10.0.0.0/8",
	} {
		if got := mapOf(t, text).String(); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{
		"a":                                `"a" is not zone=subnet,subnet`,
		"10.0.0.0/8":                       `is not zone=subnet,subnet`,
		"=10.0.0.0/8":                      `is not zone=subnet,subnet`,
		"a=":                               `"" of zone a is not a subnet`,
		"a=10.0.0.0":                       `"10.0.0.0" of zone a is not a subnet`,
		"a=10.0.0.0/33":                    `is not a subnet`,
		"a=10.0.0.1/8":                     "is 10.0.0.0/8 meant?",
		"a=::ffff:10.0.0.0/104":            "as a subnet of IPv4",
		"a=::/0;a=10.0.0.0/8":              "zone a is there twice",
		"a=10.0.0.0/8;b=10.0.0.0/8":        "10.0.0.0/8 is given to two zones, or to one twice: a and b",
		"a b=10.0.0.0/8":                   "must have no blanks",
		strings.Repeat("a", 256) + "=::/0": "more than 255 bytes",
	} {
		if _, err := zone.ParseMap(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// The map finds what a search through all subnets finds, and survives being printed.
func TestFindIsTheLongestMatch(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		zones := map[string][]netip.Prefix{}
		where := map[netip.Prefix]string{}
		for range rapid.IntRange(0, 12).Draw(t, "subnets") {
			bits := rapid.IntRange(0, 32).Draw(t, "bits")
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), 0}), bits).Masked()
			if _, taken := where[p]; taken {
				continue
			}
			name := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone")
			zones[name], where[p] = append(zones[name], p), name
		}
		m, err := zone.NewMap(zones)
		if err != nil {
			t.Fatal(err)
		}
		again, err := zone.ParseMap(m.String())
		if err != nil || again.String() != m.String() {
			t.Fatalf("%q again: %q, %v", m, again, err)
		}
		addr := netip.AddrFrom4([4]byte{10, rapid.Byte().Draw(t, "b"), rapid.Byte().Draw(t, "c"), 1})
		want, longest := "", -1
		for p, name := range where {
			if p.Contains(addr) && p.Bits() > longest {
				want, longest = name, p.Bits()
			}
		}
		if got, ok := again.Find(addr); got != want || ok != (longest >= 0) {
			t.Fatalf("%s is in %q, %v; want %q", addr, got, ok, want)
		}
	})
}

func TestRacksAreLearned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := zone.NewFinder("own", mapOf(t, "s=10.9.0.0/16"))
		expect := func(id, ip, want string) {
			t.Helper()
			known := want != ""
			if !known {
				want = "own"
			}
			if got, ok := f.Of(id, at(ip)); got != want || ok != known {
				t.Errorf("%s at %s: zone %q, %v; want %q, %v", id, ip, got, ok, want, known)
			}
		}
		expect("app", "10.0.0.1", "")
		f.Learn("app", at("10.0.0.1"), "a")
		f.Learn("other", at("10.0.0.1"), "")
		f.Learn("zone=t", at("10.0.0.1"), "a")
		f.Learn("app", at("10.9.0.1"), "a")
		f.Learn("long", at("10.0.0.1"), strings.Repeat("a", 256))
		f.Learn(strings.Repeat("a", 256), at("10.0.0.1"), "a")
		expect("app", "10.0.0.1", "a")
		expect("app", "10.0.0.2", "")
		expect("other", "10.0.0.1", "")
		expect("zone=t", "10.0.0.1", "t")
		expect("app", "10.9.0.1", "s")
		expect("long", "10.0.0.1", "")
		expect(strings.Repeat("a", 256), "10.0.0.1", "")

		f.Learn("app", at("10.0.0.1"), "b")
		expect("app", "10.0.0.1", "b")
		for range 10 { // it stays as long as its client fetches
			time.Sleep(4 * time.Minute)
			f.Learn("app", at("10.0.0.1"), "b")
			f.Learn("gone", at("10.0.0.1"), "b")
		}
		expect("app", "10.0.0.1", "b")
		time.Sleep(4 * time.Minute)
		expect("gone", "10.0.0.1", "b")
		time.Sleep(7 * time.Minute)
		expect("app", "10.0.0.1", "")
	})
}

// Many clients drive out those that were here before, and take no more room.
func TestRacksHaveRoom(t *testing.T) {
	t.Parallel()
	f := zone.NewFinder("own", zone.Map{})
	id := func(i int) string { return fmt.Sprint("client-", i) }
	for i := range 20_001 {
		f.Learn(id(i), at("10.0.0.1"), "a")
	}
	for i, want := range map[int]bool{0: false, 9_000: false, 16_000: true, 20_000: true} {
		if _, known := f.Of(id(i), at("10.0.0.1")); known != want {
			t.Errorf("client %d is known: %v", i, known)
		}
	}
}

func TestHoming(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := zone.NewHoming()
		expect := func(id, ip string, want bool) {
			t.Helper()
			if got := h.Send(id, at(ip)); got != want {
				t.Errorf("%.10s at %s is sent home: %v", id, ip, got)
			}
		}
		long := strings.Repeat("a", 1000)
		for range 3 {
			expect("app", "10.0.0.1", true)
			expect("app", "10.0.0.1", true) // with what was in flight
			expect(long, "10.0.0.1", true)
			time.Sleep(time.Second)
			for range 6 {
				expect("app", "10.0.0.1", false)
				expect(long, "10.0.0.1", false)
				time.Sleep(5*time.Second - 1)
			}
			expect("app", "10.0.0.1", false)
			expect("app", "10.0.0.2", true)
			expect("other", "10.0.0.1", true)
			time.Sleep(6 * time.Nanosecond)
		}
		time.Sleep(time.Hour)
		expect("app", "10.0.0.1", true)
	})
}

func TestNothingIsAllocatedForARequest(t *testing.T) {
	f := zone.NewFinder("own", mapOf(t, "a=10.1.0.0/16;b=10.2.0.0/16"))
	f.Learn("app", at("192.168.0.1"), "r")
	h := zone.NewHoming()
	for _, c := range []struct{ id, ip string }{
		{"app", "10.2.0.1"}, {"app,x=y,zone=c", "10.2.0.1"}, {"app", "192.168.0.1"}, {"app", "192.168.0.2"},
	} {
		addr := at(c.ip)
		h.Send(c.id, addr)
		f.Learn(c.id, addr, "r")
		if n := testing.AllocsPerRun(100, func() {
			f.Of(c.id, addr)
			f.Learn(c.id, addr, "r")
			h.Send(c.id, addr)
		}); n != 0 {
			t.Errorf("%+v: %v allocations", c, n)
		}
	}
}

func FuzzClientID(f *testing.F) {
	for _, id := range []string{"", "zone=a", "x,zone=a;ws_az=b", "warpstream_az=", ",=,zone==", "zone=a b"} {
		f.Add(id)
	}
	finder := zone.NewFinder("own", zone.Map{})
	f.Fuzz(func(t *testing.T, id string) {
		got, known := finder.Of(id, at("10.0.0.1"))
		switch {
		case !known && got != "own":
			t.Errorf("%q: nothing is known, and the zone is %q", id, got)
		case known && (got == "" || len(got) > 255 || strings.ContainsAny(got, ",;&| \t\r\n") || !strings.Contains(id, "="+got)):
			t.Errorf("%q: zone %q", id, got)
		}
	})
}

func FuzzParseMap(f *testing.F) {
	for _, text := range []string{"", "a=10.0.0.0/8", "a=10.0.0.0/8,::/0;b=10.1.0.0/16", "a==;"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := zone.ParseMap(text)
		if err != nil {
			return
		}
		if again, err := zone.ParseMap(m.String()); err != nil || again.String() != m.String() {
			t.Errorf("%q: %q, and again %q, %v", text, m, again, err)
		}
	})
}

func BenchmarkOf(b *testing.B) {
	var text []string
	for i := range 60 {
		text = append(text, fmt.Sprintf("z%d=10.%d.0.0/16", i, i))
	}
	f := zone.NewFinder("own", mapOf(b, strings.Join(text, ";")))
	f.Learn("app,zone-less,x=y", at("192.168.0.1"), "r")
	for name, addr := range map[string]net.Addr{"subnet": at(fmt.Sprintf("10.%d.0.1", rand.IntN(60))), "learned": at("192.168.0.1")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.Of("app,zone-less,x=y", addr)
			}
		})
	}
}
