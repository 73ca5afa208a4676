"""screen_test.py SHEAF: what a person sees of a run: on terminals of several sizes, in a pipe; the summary; the trace of a profiled step."""
import fcntl
import json
import os
import pathlib
import pty
import re
import signal
import struct
import sys
import termios
import unittest

sys.dont_write_bytecode = True    # no __pycache__ among the sources
sys.path.insert(0, str(pathlib.Path(__file__).parent))    # python -I leaves it out
from case import SHEAF, Case, sheaf


class Screen:
    """A terminal as far as the display needs one: text, \\r, \\n, cursor up, erase to the end of the line and of the screen. Whatever else
    comes is an error. Rows that scroll off stay: `rows` is the whole session."""

    def __init__(self, columns):
        self.columns, self.rows, self.row, self.column, self.sizes = columns, [""], 0, 0, []

    def feed(self, text):
        at = 0
        while at < len(text):
            escape = re.compile(r"\x1b\[(\d*)([AKJ])").match(text, at)
            if escape:
                at = escape.end()
                if escape[2] == "A":
                    self.row -= int(escape[1] or 1)
                    assert self.row >= 0, "above the first line"
                elif escape[2] == "K":
                    self.rows[self.row] = self.rows[self.row][:self.column]
                else:
                    self.rows[self.row] = self.rows[self.row][:self.column]
                    del self.rows[self.row + 1:]
                continue
            c = text[at]
            at += 1
            if c == "\r":
                self.column = 0
            elif c == "\n":
                self.new_line()
            else:
                assert c.isprintable(), repr(text[at - 1:at + 20])
                if self.column == self.columns:
                    self.new_line()
                    self.column = 0
                self.rows[self.row] = self.rows[self.row].ljust(self.column)[:self.column] + c + self.rows[self.row][self.column + 1:]
                self.column += 1

    def new_line(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append("")


class Terminal(Case):
    def on_terminal(self, *overrides, columns=100, rows=30, environment={}, interrupt_at=None, code=0):
        path = str(self.run_file())
        pid, terminal = pty.fork()
        if pid == 0:
            os.environ.update({"TERM": "xterm", "LC_ALL": "C.UTF-8"} | environment)
            os.execv(SHEAF, [SHEAF, "train", path, *overrides])
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        raw, sent = b"", False
        while True:
            try:
                piece = os.read(terminal, 65536)
            except OSError:    # Linux: the other side is closed
                break
            if not piece:
                break
            raw += piece
            if interrupt_at and not sent and interrupt_at in raw:
                os.write(terminal, b"\x03")    # Ctrl-C; the terminal echoes ^C and sends SIGINT
                sent = True
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
        text = raw.decode()
        self.assertEqual(status, code, text[-2000:])
        self.assertNotIn("\x1b[?25", text)    # the cursor is never hidden, so nothing can leave it so
        screen = Screen(columns)
        screen.feed(text)
        self.assertEqual((screen.column, screen.rows[screen.row]), (0, ""))    # the prompt will stand on a fresh line
        return text, screen.rows

    def one_display(self, rows):
        """The display stands once, whole, its last state."""
        at = [i for i, row in enumerate(rows) if row.startswith("step ")]
        self.assertEqual(len(at), 1, "\n".join(rows))
        return rows[at[0]:at[0] + 5]

    def test_the_display_is_drawn_in_place_and_its_last_state_stays(self):
        text, rows = self.on_terminal("run.steps=300", "run.save_every=100")
        shown = self.one_display(rows)
        self.assertRegex(shown[0], r"^step 300/300  █+  100 %  eta 0s$")
        self.assertRegex(shown[1], r"^  loss       \d+\.\d{4} +[▁▂▃▄▅▆▇█]{40}$")
        self.assertRegex(shown[2], r"^  grad norm  \d+\.\d{3} +[▁▂▃▄▅▆▇█]{40}$")
        self.assertRegex(shown[3], r"^  [\d.]+k? tokens/s \(\d+ % of peak\)  \d+ ms a step  lr 1\.00e-03  memory [\d.]+ KiB$")
        self.assertRegex(shown[4], r"^  checkpoint at step \d00$")
        self.assertTrue(any(row.startswith("300 steps, ") for row in rows))
        self.assertGreater(text.count("\x1b[5A"), 1)    # it was redrawn

    def test_no_line_is_wider_than_the_terminal_and_small_ones_get_one_line(self):
        for columns, rows, lines in ((60, 30, 5), (41, 30, 5), (30, 30, 1), (100, 6, 1), (12, 30, 1)):
            text, _ = self.on_terminal("run.steps=20", columns=columns, rows=rows)
            first = text.index("\rstep ")
            for line in re.split(r"\x1b\[\d*[AJK]|[\r\n]", text[first:text.index("20 steps, ")]):
                self.assertLess(len(line), columns, repr(line))
            self.assertEqual(max((int(n) for n in re.findall(r"\x1b\[(\d+)A", text)), default=1), lines, (columns, rows))

    def test_without_utf8_everything_is_ascii_and_a_dumb_terminal_gets_plain_lines(self):
        text, rows = self.on_terminal("run.steps=20", environment={"LC_ALL": "C"})
        self.assertTrue(self.one_display(rows)[0].isascii())
        text, rows = self.on_terminal("run.steps=20", environment={"TERM": "dumb"})
        self.assertNotIn("\x1b", text)
        self.assertEqual(sum(row.startswith("step ") for row in rows), 20)

    def test_lines_that_are_said_stand_above_the_display(self):
        _, rows = self.on_terminal("run.steps=40", "run.log_every=10")
        self.assertEqual([row.split()[1] for row in rows if "  norm " in row], ["1/40", "10/40", "20/40", "30/40", "40/40"])
        self.one_display([row for row in rows if "  norm " not in row])

    def test_evaluations_are_seen(self):
        _, rows = self.on_terminal("run.steps=20", "run.eval_every=8", "data.eval_split=0.1")
        last = self.metrics()[-1]
        best = min((m for m in self.metrics() if "eval_loss" in m), key=lambda m: m["eval_loss"])
        self.assertEqual([m["step"] for m in self.metrics() if "eval_loss" in m], [8, 16, 20])
        self.assertIn(f"evaluation at step 20: loss {last['eval_loss']:.4f}, perplexity {last['eval_perplexity']:.2f}, "
                      f"best {best['eval_loss']:.4f}", self.one_display(rows)[4])
        self.assertIn(f"best evaluation: loss {best['eval_loss']:.4f}, perplexity {best['eval_perplexity']:.2f}, at step {best['step']}", rows)

    def test_ctrl_c_and_an_error_leave_a_readable_end(self):
        _, rows = self.on_terminal("run.steps=1000000", interrupt_at=b"tokens/s", columns=250, code=130)
        self.one_display(rows)
        self.assertIn("interrupted: the step is finished, saving the model", rows)
        self.assertTrue(any(re.match(r"model: +.*/model$", row) for row in rows))
        blocker = "run.stop_on_save_error=true", "run.save_every=2", "run.steps=1000000"
        path = self.run_file()
        self.count -= 1    # the next run_file is this one
        (self.output / "checkpoints").parent.mkdir()
        (self.output / "checkpoints").write_text("a file where a folder is wanted")
        _, rows = self.on_terminal(*blocker, "--resume", columns=250, code=2)
        self.one_display(rows)
        self.assertTrue(any("checkpoint not written" in row for row in rows[-6:]), rows[-8:])


class Pipe(Case):
    def test_a_pipe_gets_plain_lines_and_the_summary_names_everything(self):
        done = self.train("run.steps=20", "run.log_every=10", "run.save_every=5", "run.keep=2")
        self.assertTrue(done.stdout.isprintable() or "\x1b" not in done.stdout)
        lines = done.stdout.splitlines()
        self.assertEqual([line.split()[1] for line in lines if line.startswith("step ")], ["1/20", "10/20", "20/20"])
        last = self.metrics()
        self.assertIn(f"loss {last[0]['loss']:.4f} -> {last[-1]['loss']:.4f}", done.stdout)
        for name, path in (("model", "model"), ("metrics", "metrics.jsonl"), ("tensorboard", "tensorboard"),
                           ("checkpoints", "checkpoints/step_00000020")):
            self.assertRegex(done.stdout, rf"(?m)^{name}: +{re.escape(str(self.output / path))}( \(newest of 2\))?$")
            self.assertTrue((self.output / path).exists())
        self.assertRegex(done.stdout, r"(?m)^peak memory: +[\d.]+ KiB$")


class Profile(Case):
    def test_the_trace_has_every_call_in_order_and_fills_the_step(self):
        done = self.train("run.steps=4", "--profile", "3", gradient_accumulation_steps=3)
        path = self.output / "profile_step_3.json"
        self.assertIn(f"trace of step 3: {path}", done.stdout)
        trace = json.loads(path.read_text())
        names = {e["name"]: e["args"]["name"] for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] != "thread_name"}
        threads = {e["args"]["name"]: e["tid"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
        self.assertEqual(names, {"process_name": "sheaf, step 3"})
        of = lambda thread: [e for e in trace["traceEvents"] if e["ph"] == "X" and e["tid"] == threads[thread]]
        calls, segments = of("main"), of("segments")
        self.assertEqual([s["name"] for s in segments], ["prologue", "first", "rest 1", "rest 2", "epilogue"])
        for events in (calls, segments):
            for a, b in zip(events, events[1:]):
                self.assertLessEqual(a["ts"] + a["dur"], b["ts"] + 1e-3, (a, b))    # microseconds; 1e-3: sums of doubles
        for segment in segments:    # and each segment holds exactly its calls
            inside = [c for c in calls if segment["ts"] - 1e-3 <= c["ts"] and c["ts"] + c["dur"] <= segment["ts"] + segment["dur"] + 1e-3]
            self.assertEqual(len(inside), segment["args"]["calls"], segment)
            self.assertEqual({c["cat"] for c in inside}, {segment["name"].split()[0]})
        self.assertEqual(sum(s["args"]["calls"] for s in segments), len(calls))
        self.assertGreater(len(calls), 100)
        for call in calls:
            self.assertEqual(set(call["args"]), {"op", "kernel", "micro_batch", "part", "out", "flops", "bytes", "floor_us"})
        arena = [e for e in trace["traceEvents"] if e["ph"] == "C"]
        self.assertEqual([e["ts"] for e in arena], [c["ts"] for c in calls])
        self.assertTrue(all(e["name"] == "arena" and e["args"]["bytes"] >= 0 for e in arena))
        self.assertGreater(max(e["args"]["bytes"] for e in arena), 0)
        # Nothing but calls takes time worth mention: of this tiny model's step, in calls of a microsecond, more than half on a quiet machine.
        # A fifth: another process may take the processor between two calls.
        total, step = sum(c["dur"] for c in calls), self.metrics()[2]["step_ms"] * 1e3
        self.assertTrue(step / 5 < total < step, (total, step))
        table = float(re.search(r"all calls: ([\d.]+) ms", done.stdout)[1])
        self.assertAlmostEqual(total / 1e3, table, delta=0.0051)    # the table has two places
        parts = {c["args"]["part"] for c in calls}
        self.assertTrue(parts >= {"prologue", "embedding", "model.layers.0", "head", "epilogue"}, parts)
        for heading in (r"op +kernel +calls +ms +share +TFLOP/s +GB/s +floor ms +of floor", r"part +calls +ms +share +floor ms +of floor",
                        "furthest above their floor:"):
            self.assertRegex(done.stdout, heading)


unittest.main()
