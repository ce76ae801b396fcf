package testdb

import "testing"

// Server is a server that belongs to one test, at an address that stays the same
// however often it is stopped and started. It ends with the test. Methods are
// safe for concurrent use, return when the change has taken effect, and report
// failures to the test.
type Server struct {
	t       testing.TB
	process *process
	address string
}

func newServer(t testing.TB, p *process, address string) *Server {
	t.Helper()
	s := &Server{t: t, process: p, address: address}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of %s:\n%s", p.name, p.log())
		}
		s.report(p.close())
	})
	return s
}

// Stop ends the server in good order; what it has acknowledged is on disk.
func (s *Server) Stop() { s.t.Helper(); s.report(s.process.end(s.process.stop)) }

// Kill ends all of the server's processes with SIGKILL.
func (s *Server) Kill() { s.t.Helper(); s.report(s.process.kill()) }

// Start starts a server that was stopped or killed, and waits until it answers.
func (s *Server) Start() { s.t.Helper(); s.report(s.process.start()) }

// Restart is Stop and Start.
func (s *Server) Restart() { s.t.Helper(); s.Stop(); s.Start() }

// Pause freezes the server's processes (SIGSTOP). Connections stay open and
// unanswered.
func (s *Server) Pause() { s.t.Helper(); s.report(s.process.pause()) }

// Resume ends a Pause.
func (s *Server) Resume() { s.process.resume() }

func (s *Server) report(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Errorf("testdb: %v", err)
	}
}
