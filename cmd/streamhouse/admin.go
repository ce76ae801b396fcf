package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/streamhouse/streamhouse/broker/traffic"
	"github.com/streamhouse/streamhouse/metadata"
)

// adminServer is the operator's listener: metrics, health, who leads what, what it
// costs, and profiles.
type adminServer struct{ http.Server }

// adminTimeout bounds what the database is asked for one answer.
const adminTimeout = 2 * time.Second

// adminStore is what the listener asks of the database.
type adminStore interface {
	metadata.Inspector
	Ping(ctx context.Context) error
}

// newAdminServer makes the server. healthy says whether the agent is fit to
// serve, cost what its traffic is and costs.
func newAdminServer(reg *prometheus.Registry, healthy func() error, cost func() traffic.Report, store adminStore) *adminServer {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	// The process is alive as long as it answers; whether it can serve is
	// readyz's, so that an outage of the database restarts no agent.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		err := healthy()
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
			defer cancel()
			err = store.Ping(ctx)
		}
		answer(w, err)
	})
	mux.HandleFunc("GET /agents", answerJSON(func(ctx context.Context, _ url.Values) ([]shownAgent, error) {
		sessions, err := store.Sessions(ctx)
		return shownAgents(sessions), err
	}))
	mux.HandleFunc("GET /leases", answerJSON(func(ctx context.Context, q url.Values) ([]shownLease, error) {
		leases, err := store.Leases(ctx, metadata.LeaseFilter{Topic: q.Get("topic"), AgentID: q.Get("agent")})
		return shownLeases(leases), err
	}))
	mux.HandleFunc("GET "+costPath, answerJSON(func(context.Context, url.Values) (traffic.Report, error) { return cost(), nil }))
	// Without cmdline: flags may hold secrets.
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return &adminServer{http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}}
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ok\n")) // a peer that is gone needs no answer
}

// answerJSON answers with what the database says, or with one line that it can't
// be asked.
func answerJSON[T any](ask func(context.Context, url.Values) (T, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), adminTimeout)
		defer cancel()
		v, err := ask(ctx, r.URL.Query())
		if err != nil {
			http.Error(w, oneLine(err.Error()), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = writeJSON(w, v) // a peer that is gone needs no answer
	}
}

// serve blocks until ctx ends. What is being answered then is cut off.
func (a *adminServer) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = a.Close() })
	defer stop()
	if err := a.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
