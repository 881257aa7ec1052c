//go:build !long

package plan_test

const everyNth = 10
