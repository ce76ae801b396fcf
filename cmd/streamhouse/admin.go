package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// adminServer is the operator's listener: metrics, health and profiles.
type adminServer struct{ http.Server }

// newAdminServer makes the server. healthy says whether the agent is fit to
// serve, ping whether the database answers now.
func newAdminServer(reg *prometheus.Registry, healthy func() error, ping func(context.Context) error) *adminServer {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{Registry: reg}))
	// The process is alive as long as it answers; whether it can serve is
	// readyz's, so that an outage of the database restarts no agent.
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		err := healthy()
		if err == nil {
			ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
			defer cancel()
			err = ping(ctx)
		}
		answer(w, err)
	})
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

// serve blocks until ctx ends. What is being answered then is cut off.
func (a *adminServer) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = a.Close() })
	defer stop()
	if err := a.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
