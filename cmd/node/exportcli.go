package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/agenticraft/node/audit"
	"github.com/agenticraft/node/audit/export"
	"github.com/agenticraft/node/internal/durable"
)

func (a *app) auditExportCommand() *cobra.Command {
	var f auditFilter
	var format, proof string
	cmd := &cobra.Command{
		Use: "export --format jsonl|ocsf|cef|csv", Short: "Print every entry that fits the filter, oldest first", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !export.Known(format) {
				return usage("--format %q is none of %s", format, strings.Join(export.Formats(), ", "))
			}
			if a.json && format != export.JSONL {
				return usage("--json prints entries as JSON: leave --format out")
			}
			query, err := f.query()
			if err != nil {
				return err
			}
			query.Set("format", format)
			if proof != "" {
				return a.exportProved(cmd.Context(), query, format, proof)
			}
			return a.export(cmd.Context(), query)
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&format, "format", export.JSONL, "jsonl, ocsf (OCSF 1.6 API activity), cef (ArcSight) or csv")
	cmd.Flags().StringVar(&proof, "proof", "", "file to write the proof of the export to, for agenticraft verify")
	return cmd
}

// export prints what the node sends.
func (a *app) export(ctx context.Context, query url.Values) error {
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	res, err := door.stream(ctx, http.MethodGet, "/v1/audit/export?"+query.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if a.json {
		return a.oneDocument(res.Body)
	}
	_, err = io.Copy(a.stdout, res.Body)
	return brokeOff(err)
}

// oneDocument prints lines of JSON as one document.
func (a *app) oneDocument(lines io.Reader) error {
	in, out := bufio.NewReader(lines), &document{out: a.stdout}
	for {
		line, err := audit.ReadLine(in)
		if errors.Is(err, io.EOF) {
			return out.Close()
		}
		if err != nil {
			return brokeOff(err)
		}
		if err := out.line(line); err != nil {
			return err
		}
	}
}

func brokeOff(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return failed("the export broke off, it is not whole: %s", rootCause(err))
}

// exportProved keeps the proof that the node sends, and prints the export that
// follows from it.
func (a *app) exportProved(ctx context.Context, query url.Values, format, file string) (err error) {
	if file, err = durable.Target(file); err != nil {
		return failed("--proof: %v", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".proof-*")
	if err != nil {
		return failed("--proof: %v", err)
	}
	defer func() {
		if err != nil {
			_ = temp.Close() // it may be closed already
			err = errors.Join(err, os.Remove(temp.Name()))
		}
	}()
	door, err := a.api(ctx)
	if err != nil {
		return err
	}
	query.Set("proof", "1")
	res, err := door.stream(ctx, http.MethodGet, "/v1/audit/export?"+query.Encode())
	if err != nil {
		return err
	}
	defer res.Body.Close()
	out, err := a.exportWriter(format)
	if err != nil {
		return err
	}
	keep := bufio.NewWriter(temp)
	in := bufio.NewReader(res.Body)
	for whole := false; !whole; {
		line, err := audit.ReadLine(in)
		if err != nil {
			return brokeOff(err)
		}
		if _, err := keep.Write(append(line, '\n')); err != nil {
			return failed("write %s: %v", file, err)
		}
		switch {
		case bytes.HasPrefix(line, []byte(`{"index":`)):
			one, err := audit.ParseEntryLine(line)
			if err != nil {
				return failed("the node sent what is no entry: %v", err)
			}
			if err := out.Write(one); err != nil {
				return err
			}
		case bytes.HasPrefix(line, []byte(`{"end":`)):
			whole = true
		}
	}
	if err := errors.Join(out.Close(), keep.Flush(), temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), file)
}

func (a *app) exportWriter(format string) (export.Writer, error) {
	if a.json {
		return &document{out: a.stdout}, nil
	}
	return export.NewWriter(a.stdout, format)
}

// document writes entries as one JSON document.
type document struct {
	out   io.Writer
	begun bool
}

func (d *document) Write(one audit.Indexed) error {
	return d.line(bytes.TrimSuffix(audit.EntryLine(one), []byte{'\n'}))
}

func (d *document) line(text []byte) error {
	before := ","
	if !d.begun {
		before, d.begun = `{"entries":[`, true
	}
	_, err := fmt.Fprintf(d.out, "%s%s", before, text)
	return err
}

func (d *document) Close() error {
	end := "]}\n"
	if !d.begun {
		end = `{"entries":[` + end
	}
	_, err := io.WriteString(d.out, end)
	return err
}
