//go:build tools

// Package tools keeps what is built straight from its module in go.mod.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
