"""What gpu-stress does to GPUs, to those who use them, and how it ends."""

from __future__ import annotations

import http.server
import os
import signal
import statistics
import threading

import pytest

GIB = 1 << 30


def test_load_and_memory_are_what_was_asked_for(host):
    """Two GPUs, of which others use one a bit, and a MIG device, at once."""
    machine = host("a100", "h100", "a100", gpu2=["3g.20gb", "1g.5gb"])
    machine.others_use(1, 0.2)
    words = ("--device", "0", "1", "2.0", "--target-util", "60", "--memory", "4GiB", "--duration", "7")
    run = machine.run(*words)
    assert run.process.returncode == 0, run.errors
    for device in ("0", "1"):
        samples = run.events("sample", device)
        measured = [sample["measured_percent"] for sample in samples]
        assert statistics.fmean(measured[4:]) == pytest.approx(60, abs=4), measured
        assert max(measured) <= 66, measured
        (end,) = run.events("end", device)
        assert end["measured_percent"] == pytest.approx(60, abs=4)
        assert end["seconds"] == pytest.approx(7, abs=1)
    alone, shared = (statistics.fmean(s["duty_percent"] for s in run.events("sample", d)[4:]) for d in ("0", "1"))
    assert shared < alone - 10
    for device in ("0", "1", "2.0"):
        taken = [sample["memory_taken_bytes"] for sample in run.events("sample", device)]
        assert min(taken) == max(taken) == 4 * GIB
    mig = run.events("sample", "2.0")
    assert [sample["measured_percent"] for sample in mig] == [None] * len(mig)
    assert statistics.fmean(sample["busy_percent"] for sample in mig) == pytest.approx(60, abs=4)
    assert "NVML measures no utilisation" in run.events("note", "2.0")[0]["text"]
    assert 6 <= len(mig) <= 7
    machine.others_use(1, 0)
    assert machine.is_idle()


def test_however_it_ends_nothing_is_left_on_the_gpu(host):
    machine = host(*["a100"] * 4)
    words = ("--memory", "2GiB", "--duration", "1h", "--interval", "0.2")
    interrupted, terminated, killed, unread = runs = [machine.start("--device", str(n), *words) for n in range(4)]
    for run in runs:
        run.until("sample")
    assert not machine.is_idle(0.1)
    interrupted.process.send_signal(signal.SIGINT)
    terminated.process.send_signal(signal.SIGTERM)
    killed.process.kill()
    unread.process.stdout.close()
    assert interrupted.wait(5)[0] == 130
    assert terminated.wait(5)[0] == 143
    assert unread.process.wait(5) == 143
    assert [run.events("end")[0]["status"] for run in (interrupted, terminated)] == [0, 0]
    assert machine.is_idle()


def test_one_that_hangs_dies_or_fails_takes_no_other_along_and_who_comes_gets_the_gpu(host):
    machine = host(*["a100"] * 6)
    run = machine.start("--device", "all", "--duration", "3.2", "--interval", "0.3", "--hang-timeout", "1")
    run.until("sample", "3")
    machine.fault(1, "hang")
    machine.fault(2, "fail")
    os.kill(run.workers()[machine.uuid(3)], signal.SIGKILL)
    machine.change("gpu.4.process.4194305", f"compute memory={GIB}")
    machine.change("gpu.5.fault", "lost")
    assert run.wait()[0] == 1
    ends = {end["device"]: end for end in run.events("end")}
    assert (ends["0"]["status"], ends["0"]["text"]) == (0, "")
    assert ends["0"]["seconds"] >= 3.1
    assert (ends["1"]["status"], ends["1"]["text"].partition(":")[0]) == (1, "hung")
    assert ends["2"]["text"] == "CudaError: CUDA error: an illegal memory access was encountered"
    assert ends["3"]["text"] == "its process died (Killed)"
    assert (ends["4"]["status"], ends["4"]["text"]) == (4, "somebody else came (process 4194305) and has it now")
    assert ends["5"]["text"] == "NVML: GPU is lost"
    assert max(ends[device]["seconds"] for device in "12345") < 3.1


@pytest.fixture(scope="module")
def exporter():
    """What gpu_exporter serves, in part: exporter(uuid, user)."""
    texts = {}

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(texts[self.path].encode())

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(uuid, user):
        labels = f'gpu_slot="0",container="notebook",user="{user}",interface="api",profile="",UUID="{uuid}"'
        texts[f"/{user}"] = f"# TYPE ds01_gpu_allocated gauge\nds01_gpu_allocated{{{labels}}} 1\n"
        return f"http://127.0.0.1:{server.server_port}/{user}"

    yield serve
    server.shutdown()
    server.server_close()


def test_ones_own_allocation_is_no_hindrance_and_an_exporter_that_is_away_is_said(host, exporter):
    machine = host("a100", "a100")
    url = exporter(machine.uuid(0), str(os.getuid()))
    mine = machine.start("--device", "0", "--duration", "0.2", "--exporter", url)
    away = machine.start("--device", "1", "--duration", "0.2", "--exporter", "http://127.0.0.1:1/metrics")
    assert mine.wait()[0] == 0, mine.errors
    assert away.wait()[0] == 0
    assert "gpu_exporter was not asked" in away.errors


def test_cupy_where_there_is_no_pytorch(host):
    machine = host("a100")
    words = ("--memory", "25%", "--target-util", "0", "--duration", "0.5", "--interval", "0.2")
    run = machine.run("--device", "0", *words, frameworks=["cupy"])
    assert run.process.returncode == 0
    assert run.events("ready")[0]["framework"] == "CuPy 14.0-stand-in"
    assert run.events("sample")[-1]["memory_taken_bytes"] == 10 * GIB
    assert run.events("sample")[-1]["busy_percent"] == 0
    assert machine.is_idle()


def test_a_line_for_people_says_target_measured_and_memory(host):
    machine = host("a100")
    run = machine.run("--device", "0", "--duration", "0.9", "--interval", "0.3", "--target-util", "40", json=False)
    line = run.lines[-2]
    assert "GPU 0" in line
    assert "target  40 %  measured " in line
    assert "memory 0.4 of 40.0 GiB" in line
    assert "ended after 1 s" in run.lines[-1]


# -- what is refused, all at once: nothing of it gets so far as to touch a GPU that another case uses ----


@pytest.fixture(scope="module")
def refused(host, exporter):
    """Every case by name, when it has ended; and the machine."""
    machine = host(*["a100"] * 6, gpu4=["1g.5gb"])
    machine.change(f"gpu.1.process.{os.getpid()}", f"compute memory={GIB}")
    machine.change("gpu.2.function.nvmlDeviceGetComputeRunningProcesses_v3", "error:NO_PERMISSION")
    runs = {
        "used": machine.start("--device", "0", "1"),
        "untold": machine.start("--device", "2"),
        "allocated": machine.start("--device", "3", "--exporter", exporter(machine.uuid(3), "alice")),
        "large": machine.start("--device", "3", "--memory", "41GiB"),
        "small": machine.start("--device", "5", "--memory", "100MiB"),
        "bare": machine.start("--device", "0", frameworks=[]),
        "other": machine.start("--device", "0", "--framework", "torch", frameworks=["cupy"]),
        "useless": machine.start("--device", "0", "4", frameworks=["torch", "cupy"], cuda="none"),
        "list": machine.start("--list", json=False),
        "no driver": host("none").start("--device", "0"),
    }
    for run in runs.values():
        run.wait()
    return runs, machine


@pytest.mark.parametrize(
    ("case", "status", "words"),
    [
        ("used", 4, ["GPU 1 (", f") is in use: process {os.getpid()} (", "Nothing was started; --force"]),
        ("untold", 4, ["this driver does not tell us"]),
        ("allocated", 4, ["gpu_exporter: it is allocated to alice (container notebook)"]),
        ("large", 2, [f"and {41 * GIB} were asked for"]),
        ("bare", 3, ["neither PyTorch nor CuPy is there", "pip install torch", "pip install 'cupy-cuda12x"]),
        ("other", 3, ["PyTorch is not there", "pip install torch"]),
        ("no driver", 5, ["Driver Not Loaded"]),
    ],
)
def test_what_is_refused_before_anything_is_started_says_why(refused, case, status, words):
    run = refused[0][case]
    assert run.process.returncode == status
    for each in words:
        assert each in run.errors
    assert run.lines == []


def test_frameworks_that_cannot_use_the_gpu_say_why(refused):
    run = refused[0]["useless"]
    assert run.process.returncode == 3
    assert any("(a build without CUDA) cannot use this GPU; CuPy" in end["text"] for end in run.events("end"))
    assert run.events("ready") == []


def test_less_memory_than_it_takes_to_make_a_load_is_refused(refused):
    run, machine = refused[0]["small"], refused[1]
    assert run.process.returncode == 2
    assert "alone take" in run.events("end")[0]["text"]
    assert machine.readings()["gpu.5.memory.used"] == "0"


def test_the_list_names_gpus_and_who_uses_them(refused):
    run, machine = refused[0]["list"], refused[1]
    assert run.process.returncode == 0
    assert [line[:9].strip() for line in run.lines] == ["GPU 0", "GPU 1", "GPU 2", "GPU 3", "MIG 4.0", "GPU 5"]
    assert machine.uuid(1) in run.lines[1]
    assert f"process {os.getpid()} (" in run.lines[1]
    assert run.lines[4].endswith("nobody uses it")
