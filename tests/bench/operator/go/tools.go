//go:build tools

// Package tools keeps what is built straight from its module in go.mod.
package tools

import _ "sigs.k8s.io/kwok/cmd/kwok"
