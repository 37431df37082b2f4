//go:build tools

// Package tools keeps what is built straight from its module in go.mod.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
