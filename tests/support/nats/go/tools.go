//go:build tools

// Package tools keeps what is built straight from its module in go.mod.
package tools

import _ "github.com/nats-io/nats-server/v2"
