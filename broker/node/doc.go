// Package node puts an agent together: it makes all parts, wires them, runs them
// side by side, and takes them out of service in the right order. It is the one
// place that knows every part, for the program and for the simulation alike.
//
// It knows no flags, files or sockets: who makes a node gives it its stores and a
// listener.
package node
