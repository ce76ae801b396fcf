// Package agent is the life of this process among the others: it registers,
// says at a steady pace that it is alive, and deregisters.
package agent
