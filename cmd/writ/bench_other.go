//go:build !unix

package main

import "time"

// processCPU and residentBytes are not measured here.
func processCPU() time.Duration { return 0 }
func residentBytes() uint64     { return 0 }
