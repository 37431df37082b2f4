//go:build tools

// Package tools keeps what is built straight from its module in go.mod.
package tools

import (
	_ "github.com/yannh/kubeconform/cmd/kubeconform"
	_ "github.com/zegl/kube-score/cmd/kube-score"
)
