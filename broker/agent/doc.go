// Package agent is the life of this process among the others: it registers,
// says at a steady pace that it is alive, holds the sign of life by whose end its
// death is noticed, answers challenges, and deregisters. If it was believed dead
// and lives, it registers again, and doubts its leases.
package agent
