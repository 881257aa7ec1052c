package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/export"
)

func (a *app) verifyCommand() *cobra.Command {
	var trustFile, exported, extract string
	cmd := &cobra.Command{
		Use: "verify FILE --trust TRUST.json", Short: "Check a receipt, or the proof of an export, offline", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if trustFile == "" {
				return usage("verify needs --trust TRUST.json; agenticraft trust export makes one")
			}
			trust, err := readTrust(trustFile)
			if err != nil {
				return err
			}
			ofExport, err := isExportProof(args[0])
			if err != nil {
				return err
			}
			if ofExport && extract != "" {
				return usage("--extract takes a receipt apart, and %s is the proof of an export", args[0])
			}
			if ofExport {
				return a.verifyExport(cmd.Context(), args[0], exported, trust)
			}
			if exported != "" {
				return usage("--export goes with the proof of an export, and %s is none", args[0])
			}
			receipt, err := readSmall(args[0], maxReceiptFile)
			if err != nil {
				return err
			}
			if err := a.verify(receipt, trust); err != nil || extract == "" {
				return err
			}
			return extractProofs(receipt, extract)
		},
	}
	cmd.Flags().StringVar(&trustFile, "trust", "", "whom to trust: the cluster's trust.json")
	cmd.Flags().StringVar(&exported, "export", "", "the export that the proof belongs to, to be compared byte for byte")
	cmd.Flags().StringVar(&extract, "extract", "", "a folder to write the entries and their C2SP tlog-proofs into, for other tools")
	return cmd
}

// extractProofs writes what a verified receipt proves as other people's tools
// read it: each entry's leaf, and its tlog-proof.
func extractProofs(receipt []byte, dir string) error {
	r, err := audit.ParseReceipt(receipt)
	if err != nil {
		return failed("%v", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return failed("%v", err)
	}
	intent, outcome := r.TLogProofs()
	for name, text := range map[string][]byte{
		"intent.tlog-proof": intent.Text(), "intent.json": []byte(r.Intent.Leaf),
		"outcome.tlog-proof": outcome.Text(), "outcome.json": []byte(r.Outcome.Leaf),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return failed("%v", err)
		}
	}
	return nil
}

// verify checks a receipt and says each thing that it checked.
func (a *app) verify(receipt []byte, trust audit.Trust) error {
	checks, err := audit.VerifyReceipt(receipt, trust, requestFacts)
	return a.verdict(checks, err)
}

func (a *app) verdict(checks []audit.Check, err error) error {
	if a.json {
		out := map[string]any{"verified": err == nil, "checks": checks}
		if err != nil {
			out["error"] = map[string]string{"code": "unverified", "message": err.Error(), "hint": ""}
		}
		a.print(out)
	} else {
		for _, c := range checks {
			mark := "ok  "
			if !c.OK {
				mark = "BAD "
			}
			fmt.Fprintf(a.stdout, "%s %s: %s\n", mark, c.Name, c.Detail)
		}
		if err != nil {
			fmt.Fprintf(a.stderr, "agenticraft: error: %v\n", err)
		} else {
			fmt.Fprintln(a.stdout, "verified")
		}
	}
	if err != nil {
		return exitError(exitUnverified)
	}
	return nil
}

// openRegular opens a file that ends.
func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name) // before opening: a pipe would wait for its writer
	if err != nil {
		return nil, failed("%v", err)
	}
	if !info.Mode().IsRegular() {
		return nil, failed("%s is not a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, failed("%v", err)
	}
	return f, nil
}

// isExportProof tells the proof of an export from a receipt by its first line.
func isExportProof(name string) (bool, error) {
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		return false, nil // a pipe is read once; only receipts are small enough to be kept
	}
	f, err := openRegular(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	line, err := audit.ReadLine(bufio.NewReader(f))
	if err != nil {
		return false, nil //nolint:nilerr // then the verifier of receipts says what is wrong
	}
	var head struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(line, &head) == nil && head.Type == audit.ExportProofType, nil
}

// verifyExport checks the proof of an export. From the proved entries it writes
// the export again, and compares it with the one that is shown.
func (a *app) verifyExport(ctx context.Context, name, exported string, trust audit.Trust) error {
	f, err := openRegular(name)
	if err != nil {
		return err
	}
	defer f.Close()
	format, err := formatOf(f)
	if err != nil {
		return a.verdict([]audit.Check{{Name: "format", Detail: err.Error()}}, err)
	}
	sum := sha256.New()
	same := &comparer{}
	if exported != "" {
		with, err := openRegular(exported)
		if err != nil {
			return err
		}
		defer with.Close()
		same.with = bufio.NewReader(with)
	}
	out, err := export.NewWriter(io.MultiWriter(sum, same), format)
	if err != nil {
		return a.verdict([]audit.Check{{Name: "format", Detail: err.Error()}}, err)
	}
	report, err := audit.VerifyExport(ctx, f, trust, out.Write)
	if err == nil {
		err = out.Close()
	}
	checks := report.Checks
	if err == nil {
		found := "as " + format + " these entries have SHA-256 " + hex.EncodeToString(sum.Sum(nil))
		if exported != "" {
			if err = same.end(); err == nil {
				found += ", as " + exported + " does"
			} else {
				found = err.Error()
			}
		}
		checks = append(checks, audit.Check{Name: "export", OK: err == nil, Detail: found})
	}
	return a.verdict(checks, err)
}

func formatOf(f *os.File) (string, error) {
	line, err := audit.ReadLine(bufio.NewReader(f))
	if err != nil {
		return "", err
	}
	var head audit.ExportProof
	if err := json.Unmarshal(line, &head); err != nil {
		return "", err
	}
	_, err = f.Seek(0, io.SeekStart)
	return head.Format, err
}

// comparer holds what is written to it against a file.
type comparer struct {
	with   *bufio.Reader // nil: with nothing
	at     int64
	differ int64 // offset of the first difference, plus 1
}

func (c *comparer) Write(p []byte) (int, error) {
	if c.with == nil || c.differ > 0 {
		return len(p), nil
	}
	got := make([]byte, len(p))
	n, _ := io.ReadFull(c.with, got) // what is missing differs
	if n < len(p) || !bytes.Equal(got, p) {
		i := 0
		for i < n && got[i] == p[i] {
			i++
		}
		c.differ = c.at + int64(i) + 1
	}
	c.at += int64(len(p))
	return len(p), nil
}

func (c *comparer) end() error {
	if c.differ == 0 && c.with != nil {
		if _, err := c.with.ReadByte(); err == nil {
			c.differ = c.at + 1
		}
	}
	if c.differ > 0 {
		return fmt.Errorf("%w: the export is not what the proved entries give: they differ from byte %d on", audit.ErrInvalid, c.differ-1)
	}
	return nil
}
