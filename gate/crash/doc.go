// Package crash holds tests only. They kill real gateways, and look at what is
// left.
//
// Two gateway processes and an operator's process work on one ledger file.
// They race for approvals, for call ids and for budgets, while they are killed
// at any moment and at any system call, stopped and continued, told that a
// sync has failed or that the disk is full. The tools are in another process,
// which writes down every effect before it answers; a gateway writes down
// every result that it gives out. Afterwards the ledger must account for both.
//
// That the tests would notice is tested too: gateways that are wrong on
// purpose, by what stands between them and their ledger, must be found out.
//
// A killed process does not lose what it wrote without a sync. What a loss of
// power leaves behind is tested in ledger/sqlite.
package crash
