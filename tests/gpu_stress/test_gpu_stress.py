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


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly(host, number, status):
    machine = host("a100")
    run = machine.start("--device", "all", "--memory", "2GiB", "--duration", "1h", "--interval", "0.2")
    run.until("sample")
    run.process.send_signal(number)
    assert run.wait(5)[0] == status
    assert run.events("end")[0]["status"] == 0
    assert machine.is_idle()


def test_nothing_runs_on_when_it_is_killed(host):
    machine = host("a100")
    run = machine.start("--device", "0", "--duration", "1h", "--interval", "0.2")
    run.until("sample")
    run.process.kill()
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


def test_a_gpu_that_is_in_use_is_refused_and_nothing_is_started_anywhere(host):
    machine = host("a100", "a100")
    machine.change(f"gpu.1.process.{os.getpid()}", f"compute memory={GIB}")
    run = machine.run("--device", "0", "1")
    assert run.process.returncode == 4
    assert f"GPU 1 ({machine.uuid(1)}) is in use: process {os.getpid()} (" in run.errors
    assert "--force" in run.errors
    assert run.lines == []


def test_force_puts_the_load_beside_others_and_says_so(host):
    machine = host("a100")
    machine.change("gpu.0.process.4194305", f"graphics memory={GIB}")
    run = machine.run("--device", "0", "--duration", "0.5", "--force")
    assert run.process.returncode == 0
    assert "in use: process 4194305. --force" in run.errors


def test_a_driver_that_does_not_tell_who_is_there_is_no_free_gpu(host):
    machine = host("a100")
    machine.change("gpu.0.function.nvmlDeviceGetComputeRunningProcesses_v3", "error:NO_PERMISSION")
    run = machine.run("--device", "0")
    assert run.process.returncode == 4
    assert "does not tell" in run.errors


@pytest.fixture
def exporter():
    """What gpu_exporter serves, in part: exporter(uuid, user)."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(server.text.encode())

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def serve(uuid, user):
        labels = f'gpu_slot="0",container="notebook",user="{user}",interface="api",profile="",UUID="{uuid}"'
        server.text = f"# TYPE ds01_gpu_allocated gauge\nds01_gpu_allocated{{{labels}}} 1\n"
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield serve
    server.shutdown()
    server.server_close()


def test_a_gpu_that_was_given_to_somebody_is_refused_though_nothing_runs_on_it(host, exporter):
    machine = host("a100")
    run = machine.run("--device", "0", "--exporter", exporter(machine.uuid(0), "alice"))
    assert run.process.returncode == 4
    assert "allocated to alice (container notebook)" in run.errors


def test_ones_own_allocation_is_no_hindrance_and_an_exporter_that_is_away_is_said(host, exporter):
    machine = host("a100", "a100")
    url = exporter(machine.uuid(0), str(os.getuid()))
    mine = machine.start("--device", "0", "--duration", "0.2", "--exporter", url)
    away = machine.start("--device", "1", "--duration", "0.2", "--exporter", "http://127.0.0.1:1/metrics")
    assert mine.wait()[0] == 0, mine.errors
    assert away.wait()[0] == 0
    assert "gpu_exporter was not asked" in away.errors


@pytest.mark.parametrize(
    ("frameworks", "words", "text"),
    [
        ([], [], "neither PyTorch nor CuPy is there"),
        (["cupy"], ["--framework", "torch"], "PyTorch is not there"),
    ],
)
def test_without_a_framework_it_says_what_to_do(host, frameworks, words, text):
    machine = host("a100")
    machine.frameworks = frameworks
    run = machine.run("--device", "0", *words)
    assert run.process.returncode == 3
    assert text in run.errors
    assert "pip install torch" in run.errors
    assert "cupy-cuda12x" in run.errors
    assert run.lines == []


def test_frameworks_that_cannot_use_the_gpu_say_why(host):
    machine = host("a100", "a100")
    machine.frameworks, machine.cuda = ["torch", "cupy"], "none"
    run = machine.run("--device", "all")
    assert run.process.returncode == 3
    for end in run.events("end"):
        assert "(a build without CUDA) cannot use this GPU; CuPy" in end["text"] or end["status"] == 0


def test_cupy_where_there_is_no_pytorch(host):
    machine = host("a100")
    machine.frameworks = ["cupy"]
    words = ("--memory", "25%", "--target-util", "0", "--duration", "0.5", "--interval", "0.2")
    run = machine.run("--device", "0", *words)
    assert run.process.returncode == 0
    assert run.events("ready")[0]["framework"] == "CuPy 14.0-stand-in"
    assert run.events("sample")[-1]["memory_taken_bytes"] == 10 * GIB
    assert run.events("sample")[-1]["busy_percent"] == 0
    assert machine.is_idle()


def test_memory_that_cannot_be_had_is_refused_before_anything_is_taken(host):
    machine = host("a100")
    run = machine.run("--device", "0", "--memory", "41GiB")
    assert run.process.returncode == 2
    assert "bytes free of" in run.errors


def test_less_memory_than_it_takes_to_make_a_load_is_refused(host):
    machine = host("a100")
    run = machine.run("--device", "0", "--memory", "100MiB")
    assert run.process.returncode == 2
    assert "alone take" in run.events("end")[0]["text"]
    assert machine.is_idle()


def test_without_a_driver_it_says_so(host):
    run = host("none").run("--device", "0")
    assert run.process.returncode == 5
    assert "Driver Not Loaded" in run.errors


def test_a_line_for_people_says_target_measured_and_memory(host):
    machine = host("a100")
    run = machine.run("--device", "0", "--duration", "0.9", "--interval", "0.3", "--target-util", "40", json=False)
    line = run.lines[-2]
    assert "GPU 0" in line
    assert "target  40 %  measured " in line
    assert "memory 0.4 of 40.0 GiB" in line
    assert "ended after 1 s" in run.lines[-1]


def test_output_that_nobody_reads_ends_it(host):
    machine = host("a100")
    run = machine.start("--device", "0", "--duration", "1h", "--interval", "0.2")
    run.until("sample")
    run.process.stdout.close()
    run.process.wait(5)
    assert run.process.returncode == 143
    assert machine.is_idle()


def test_the_list_names_gpus_and_who_uses_them(host):
    machine = host("a100", "a100", gpu1=["1g.5gb"])
    machine.change("gpu.0.process.4194305", f"compute memory={GIB}")
    run = machine.run("--list", json=False)
    assert run.process.returncode == 0
    gpu, mig = run.lines
    assert machine.uuid(0) in gpu
    assert gpu.endswith("process 4194305")
    assert mig.startswith("MIG 1.0")
    assert mig.endswith("nobody uses it")
