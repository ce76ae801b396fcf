package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"

	"github.com/streamhouse/streamhouse/broker/rpc"
)

// PeerSettings are those of calls between agents.
type PeerSettings struct {
	Address           string
	AdvertisedAddress string
	Secret            string
	TLSCert           string
	TLSKey            string
	TLSCA             string
}

// peerOff says that an agent takes part in no calls between agents.
const peerOff = "off"

func peerSettings(s *Settings) []setting {
	p := &s.Peer
	return []setting{
		{"peer.address", text(&p.Address), "Where other agents reach this one: host:port, or off. An IP address is also where this agent's own calls come from. The default is the host of address and a free port; off with the embedded metadata store."},
		{"peer.advertised_address", text(&p.AdvertisedAddress), "host:port that other agents are told to connect to. The default is peer.address, with the host's name where that is every interface."},
		{"peer.secret", secretText(&p.Secret), "Secret that all agents of the cluster share, at least 16 bytes, by which they know each other. The default is one that the metadata store keeps."},
		{"peer.tls_cert", text(&p.TLSCert), "PEM file of the certificate that other agents are shown, instead of a secret; with peer.tls_key and peer.tls_ca. The three are read again when they change."},
		{"peer.tls_key", text(&p.TLSKey), "PEM file of its key."},
		{"peer.tls_ca", text(&p.TLSCA), "PEM file of the authorities that sign the certificates of this cluster's agents, and nobody else's: who has one is taken for an agent, whatever its names."},
	}
}

// resolvePeer fills in where other agents reach this one, and checks by what they know
// each other.
func (s *Settings) resolvePeer() error {
	p := &s.Peer
	switch {
	case p.Address == "" && !s.postgres(): // nobody can share it
		p.Address = peerOff
	case p.Address == "":
		host, _, err := net.SplitHostPort(s.Address)
		if err != nil {
			return fmt.Errorf("address %q: %w", s.Address, err)
		}
		p.Address = net.JoinHostPort(host, "0")
	case p.Address != peerOff:
		if _, _, err := hostPort(p.Address); err != nil {
			return fmt.Errorf("peer.address %q: %w, or off", p.Address, err)
		}
	}
	if p.AdvertisedAddress != "" {
		if host, port, err := hostPort(p.AdvertisedAddress); err != nil || host == "" || port == 0 {
			return fmt.Errorf("peer.advertised_address %q: must be host:port as other agents reach it", p.AdvertisedAddress)
		}
	}
	if n := len(p.Secret); n > 0 && n < rpc.MinSecretBytes {
		return fmt.Errorf("peer.secret has %d bytes: it must have at least %d", n, rpc.MinSecretBytes)
	}
	files := p.files()
	if !files.IsSet() {
		return nil
	}
	if files.Certificate == "" || files.Key == "" || files.Authorities == "" {
		return errors.New("peer.tls_cert, peer.tls_key and peer.tls_ca must be set together")
	}
	if p.Secret != "" {
		return errors.New("peer.secret and peer.tls_cert exclude each other: agents know each other by one of them")
	}
	if _, err := rpc.FromFiles(files, slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("peer.tls_cert, peer.tls_key and peer.tls_ca: %w", err)
	}
	return nil
}

func (p *PeerSettings) files() rpc.Files {
	return rpc.Files{Certificate: p.TLSCert, Key: p.TLSKey, Authorities: p.TLSCA}
}

// listenPeers opens the listener for calls of other agents; nil if it is off.
func (s *Settings) listenPeers() (net.Listener, error) {
	if s.Peer.Address == peerOff || s.Peer.Address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", s.Peer.Address)
	if err != nil {
		return nil, fmt.Errorf("peer.address: %w: set peer.address to a free one", err)
	}
	return l, nil
}

// advertisedPeer is what other agents are told, given where this one listens for them.
func (s *Settings) advertisedPeer(listening net.Addr) (string, error) {
	if s.Peer.AdvertisedAddress != "" {
		return s.Peer.AdvertisedAddress, nil
	}
	host, err := hostOf(s.Peer.Address)
	if err != nil {
		return "", fmt.Errorf("peer.advertised_address must be set: %w", err)
	}
	return net.JoinHostPort(host, strconv.Itoa(listening.(*net.TCPAddr).Port)), nil
}

// rpcConfig has calls come from the address at which the agent is called, if that is
// one, so that firewalls and counters can tell agents apart.
func (s *Settings) rpcConfig() rpc.Config {
	c := rpc.Config{Secret: []byte(s.Peer.Secret), Files: s.Peer.files()}
	host, _, _ := net.SplitHostPort(s.Peer.Address) // which was checked
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}}
		c.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return c
}
