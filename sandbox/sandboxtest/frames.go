package sandboxtest

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/agenticraft/node/sandbox"
)

// frame is a program that writes one frame of its own to the result channel.
func frame(name, proves, kind, payload string, end testCase) testCase {
	var bytes strings.Builder
	for _, b := range append(binary.BigEndian.AppendUint32(nil, uint32(len(payload)+1)), kind+payload...) {
		fmt.Fprintf(&bytes, "\\x%02x", b)
	}
	end.name, end.proves = name, proves
	end.code = python("import os\nos.write(3, b'" + bytes.String() + "')\nos._exit(0)")
	return end
}

// frames are attacks by what a program writes to the channel of its result, and
// by what it closes.
var frames = []testCase{
	frame("G85 a result that is NaN", "what is not JSON is no result", "R", "NaN", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	frame("G85 a result of two values", "one value is a result, more are none", "R", "1 2", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	frame("G85 a result of nothing", "an empty frame is no value", "R", "", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	frame("G85 a result that is no text", "what is not UTF-8 is refused, not mended", "R", "\"\xff\xfe\"", testCase{status: sandbox.Error, exit: 1, errorCode: "result_not_json"}),
	frame("G85 a result with a NUL", "no reader is cut short", "R", "\"a\x00b\"", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	frame("G85 a deep result", "depth is counted before it is parsed", "R", strings.Repeat("[", 1000)+strings.Repeat("]", 1000), testCase{status: sandbox.Error, exit: 1, errorCode: "result_not_json"}),
	frame("G85 a number too large for others", "what readers would round stays as it is", "R", "123456789012345678901234567890", testCase{status: sandbox.OK, value: "123456789012345678901234567890"}),
	frame("G85 infinity as a number", "what readers would take for infinity is refused", "R", `{"a":-1e400}`, testCase{status: sandbox.Error, exit: 1, errorCode: "result_not_json"}),
	frame("G85 a number without end", "a number on which readers fail is refused", "R", "["+strings.Repeat("9", 5000)+"]", testCase{status: sandbox.Error, exit: 1, errorCode: "result_not_json"}),
	frame("G85 an error of the node's", "a program speaks for itself alone", "E", "internal\nthe node failed", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	frame("G85 an unknown frame", "what is not known is nonsense", "Z", "1", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	frame("G85 another greeting", "nobody begins twice", "H", "", testCase{status: sandbox.Error, exit: 1, errorCode: "bad_reply"}),
	{name: "G85 a frame of no length", proves: "a length of nothing is nonsense", status: sandbox.Error, exit: 1, errorCode: "bad_reply", code: python("import os\nos.write(3, b'\\0\\0\\0\\0R')\nos._exit(0)")},
	{name: "G85 a byte at a time", proves: "who dawdles is ended by time", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: python("import os, time\nfor b in b'\\0\\0\\1\\0R' + b'1' * 255:\n  os.write(3, bytes([b]))\n  time.sleep(0.1)")},
	{name: "G85 a channel that is stuffed", proves: "what follows the first frame is not read", prepare: wall(time.Second / 2), status: sandbox.Timeout, exit: 124, code: python("import os\nwhile True: os.write(3, b'\\0\\0\\0\\2R1' * 1000)")},
	{name: "G85 an answer of a child", proves: "what outlives the program says nothing", status: sandbox.OK, code: python("import os, time\nif os.fork() == 0:\n  time.sleep(5)\n  os.write(3, b'\\0\\0\\0\\2R7')\nos._exit(0)")},
	{name: "G85 descriptors that are shut", proves: "a program without a voice has no result", status: sandbox.Error, exit: 120, code: python("import os\nfor fd in (0, 1, 2, 3): os.close(fd)\nresult = 1")},
	{name: "G85 descriptors in disorder", proves: "streams go where the program sent them, and nowhere else", status: sandbox.OK, value: "1", stdout: "to err\n", stderr: "to out\n", code: python("import os, sys\nos.dup2(1, 250); os.dup2(2, 1); os.dup2(250, 2); os.close(250)\nos.write(1, b'to out\\n'); os.write(2, b'to err\\n')\nresult = 1")},
	{name: "G87 duplicate names", proves: "a name given twice has one value, the last", status: sandbox.OK, value: `{"1":"b"}`, code: map[string]string{"javascript": "const result = JSON.parse('{\"1\":\"a\",\"1\":\"b\"}')"}},
	{name: "G92 a hostile toJSON", proves: "what throws while it is written is the program's own trouble", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"javascript": "const result = {toJSON() { throw new Error('no') }}"}},
	{name: "G92 a result that throws", proves: "a method of a result is the program's own trouble", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"python": "class A(dict):\n  def items(self): raise SystemExit(0)\nresult = A(a=1)", "javascript": "const result = {toJSON() { throw null }}"}},
	{name: "G92 streams that are shut", proves: "who shuts his output has a result still", status: sandbox.OK, value: "1", code: map[string]string{"python": "import sys\nsys.stdout.close()\nsys.stderr = None\nresult = 1", "javascript": "require('fs').closeSync(1); console.log('x'); const result = 1"}},
	{name: "G88 a result beyond all text", proves: "too much to be written is too large", status: sandbox.Error, exit: 1, errorCode: "result_too_large", code: map[string]string{"javascript": "const result = new Array(1e9)"}},
	{name: "G93 an exit code beyond a byte", proves: "no failure looks like success", status: sandbox.Error, exit: 255, code: map[string]string{"python": "import sys\nsys.exit(1 << 80)", "starlark": "exit(1 << 80)"}},
	{name: "G87 a number beyond all readers", proves: "nobody reads another result than was given, or fails on it", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{
		"python": "import sys\nsys.set_int_max_str_digits(0)\nresult = 10 ** 5000", "starlark": "result = int('1' * 5000)", "sh": "echo 1e400 > result.json", "wasm": "guest value 1e400",
	}},
	{name: "G91 a mark before the program", proves: "how an editor begins a text is no part of it", status: sandbox.OK, value: "1", code: map[string]string{"python": "\ufeffresult = 1", "javascript": "\ufeffconst result = 1", "starlark": "\ufeffresult = 1"}},
	{name: "G93 an exit in the way", proves: "an exit code that is set is the program's", status: sandbox.Error, exit: 3, value: "1", code: map[string]string{"javascript": "process.exitCode = 3; const result = 1"}},
	{name: "G86 a result that is no file", proves: "a link, a folder or a pipe is no result", status: sandbox.OK, check: kept(), code: map[string]string{"sh": "ln -s /proc/self/environ result.json", "python": "import os\nos.symlink('/etc/passwd', 'result.json')"}},
	{name: "G86 a result of binary", proves: "what is not text is no result", status: sandbox.Error, exit: 1, errorCode: "result_not_json", code: map[string]string{"sh": "printf '\"\\377\\000\"' > result.json"}},
	{name: "G91 a program with NUL bytes", proves: "no reader of the program is cut short", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"python": "result = 1\n\x00\nresult = 2", "javascript": "const result = 1\n\x00\n)"}},
	{name: "G91 a program of no text", proves: "what cannot be read as text is a language error", status: sandbox.Error, exit: 1, errorCode: "language_error", code: python("result = '\xff\xfe'")},
	{name: "G91 a program without end", proves: "a parser's depth is the program's own trouble", status: sandbox.Error, exit: 1, errorCode: "language_error", code: map[string]string{"python": strings.Repeat("(", 200_000), "starlark": strings.Repeat("(", 200_000), "javascript": strings.Repeat("(", 200_000)}},
	{name: "G91 a line without end", proves: "a long line is a line", status: sandbox.OK, value: "300000", code: map[string]string{"python": "result = len('" + strings.Repeat("x", 300_000) + "')", "starlark": "result = len('" + strings.Repeat("x", 300_000) + "')", "javascript": "const result = '" + strings.Repeat("x", 300_000) + "'.length"}},
}
