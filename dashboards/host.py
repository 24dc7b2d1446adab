"""One host: CPU, memory, disks and network by node_exporter, and its GPUs in short."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.alerts import firing_now
from .shared.page import Page
from .shared.panels import Panel, Query, bars, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import CARD, HOST, pick

H = pick(HOST)
NO_NODE = "No node_exporter reports this host"
RATE = "[$__rate_interval]"
# What holds no data of its own.
DISKS = pick(HOST, 'device!~"loop.*|ram.*|zram.*|dm-.*|sr.*"')
FILESYSTEMS = pick(HOST, 'fstype!~"tmpfs|ramfs|squashfs|overlay|efivarfs"')
IDLE, BUSY = pick(HOST, 'mode="idle"'), pick(HOST, 'mode!="idle"')
FAILED = pick(HOST, 'state="failed"')
CARDS = pick(HOST, 'device!~"lo|veth.*|docker.*|br-.*|virbr.*|vnet.*|tap.*|cali.*|cni.*|flannel.*"')


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "host",
        "Host",
        "CPU, memory, disks and network of one host, its GPUs in short, and the alerts that it has.",
        variables.site(),
        variables.host("up"),
    )
    board.alerts(HOST)
    board.row("Now", *_now())
    board.row("GPUs", _gpus())
    board.row("CPU and memory", *_processors())
    board.row("Disks", *_disks())
    board.row("Network", *_network())
    return board


def _now() -> t.Iterator[Panel]:
    yield number(
        "Up for",
        "Time since the host was booted.",
        "s",
        f"max(node_time_seconds{H} - node_boot_time_seconds{H})",
        no_data=NO_NODE,
        thresholds=panels.falling(86400, 600),
    )
    yield number(
        "Exporters down",
        "Exporters of this host that do not answer.",
        "short",
        f"count(up{H} == 0) or 0 * count(up{H})",
        no_data="The inventory has no such host, or no exporter on it",
        thresholds=panels.NONE_WANTED,
    )
    yield number(
        "CPU busy",
        "Part of all cores' time that is not idle.",
        "percentunit",
        f"1 - avg(rate(node_cpu_seconds_total{IDLE}{RATE}))",
        no_data=NO_NODE,
        thresholds=panels.FULL,
        decimals=0,
    )
    yield number(
        "Load per core",
        "Processes that run or want to, over five minutes, for each core.",
        "short",
        f"max(node_load5{H}) / count(node_cpu_seconds_total{IDLE})",
        no_data=NO_NODE,
        thresholds=panels.rising(1, 2),
        decimals=2,
    )
    yield number(
        "Memory in use",
        "Part of the memory that is not available to programs; caches are.",
        "percentunit",
        f"1 - max(node_memory_MemAvailable_bytes{H} / node_memory_MemTotal_bytes{H})",
        no_data=NO_NODE,
        thresholds=panels.FULL,
        decimals=0,
    )
    yield number(
        "Fullest filesystem",
        "Part in use of the filesystem that has the least room left, by percentage.",
        "percentunit",
        f"1 - min(node_filesystem_avail_bytes{FILESYSTEMS} / node_filesystem_size_bytes{FILESYSTEMS})",
        no_data=NO_NODE,
        thresholds=panels.FULL,
        decimals=0,
    )
    yield number(
        "GPUs not ok",
        "GPUs of this host that are lost, unresponsive, without driver and so on.",
        "short",
        f"sum(host:gpus_not_ok:count{H})",
        no_data="No gpu_exporter reports a GPU of this host",
        thresholds=panels.NONE_WANTED,
    )
    yield number(
        "Failed units",
        "systemd units of this host that have failed.",
        "short",
        f"sum(node_systemd_unit_state{FAILED})",
        no_data="node_exporter's collector systemd is off here",
        thresholds=panels.FEW_WANTED,
    )
    yield firing_now(HOST, span=14, height=7)
    yield rows(
        "Units that have failed",
        "systemd units of this host that have failed: systemctl status says why.",
        [Key("name", "Unit")],
        [
            Column(
                "Failed",
                "short",
                f"max by (name) (node_systemd_unit_state{FAILED}) == 1",
                names={"1": ("yes", panels.RED)},
            )
        ],
        worst=["Unit"],
        rising=True,
        no_data="No unit has failed, or node_exporter's collector systemd is off here",
        span=10,
        height=7,
    )


def _gpus() -> Panel:
    def of(record: str, *matchers: str) -> str:
        return f"max by (gpu, model, UUID) ({record}{pick(HOST, *matchers)})"

    return rows(
        "GPUs",
        "Each GPU of this host as it is now. GPU leads to its own dashboard.",
        [Key("gpu", "GPU", (links.to_gpu(host="${host}"),)), Key("model", "Model"), Key("UUID", "UUID")],
        [
            Column("State", "short", of("gpu:state:bool", 'state="ok"'), names=panels.OK),
            Column("Utilisation", "percentunit", of("gpu:utilization:ratio", CARD), decimals=0),
            Column("Memory", "percentunit", of("gpu:memory_used:ratio", CARD), panels.FULL, decimals=0),
            Column("Core", "celsius", of("gpu:core_temperature:celsius"), panels.CORE),
            Column("VRAM", "celsius", of("gpu:vram_temperature:celsius"), panels.VRAM),
            Column("Hotspot", "celsius", of("gpu:hotspot_temperature:celsius"), panels.HOTSPOT),
            Column("Power", "watt", of("gpu:power:watts")),
        ],
        worst=["Core"],
        no_data="No gpu_exporter reports a GPU of this host",
    )


def _processors() -> t.Iterator[Panel]:
    yield lines(
        "CPU",
        "Time of all cores by what they did, as a part of all their time.",
        "percentunit",
        Query(
            f"sum by (mode) (rate(node_cpu_seconds_total{BUSY}{RATE})) / scalar(count(node_cpu_seconds_total{IDLE}))",
            "{{mode}}",
        ),
        no_data=NO_NODE,
        most=1,
        stacked=True,
        span=8,
    )
    yield lines(
        "Load",
        "Processes that run or want to, as means of so many minutes, and the number of cores.",
        "short",
        Query(f"node_load1{H}", "1 min"),
        Query(f"node_load5{H}", "5 min"),
        Query(f"node_load15{H}", "15 min"),
        Query(f"count(node_cpu_seconds_total{IDLE})", "cores"),
        no_data=NO_NODE,
        span=8,
    )
    yield lines(
        "Memory",
        "What the memory is used for. Caches are given back when programs want them. Swap, on top, is on a disk.",
        "bytes",
        Query(
            f"node_memory_MemTotal_bytes{H} - node_memory_MemFree_bytes{H} - node_memory_Buffers_bytes{H}"
            f" - node_memory_Cached_bytes{H} - node_memory_SReclaimable_bytes{H}",
            "programs",
        ),
        Query(
            f"node_memory_Buffers_bytes{H} + node_memory_Cached_bytes{H} + node_memory_SReclaimable_bytes{H}", "caches"
        ),
        Query(f"node_memory_MemFree_bytes{H}", "free"),
        Query(f"node_memory_SwapTotal_bytes{H} - node_memory_SwapFree_bytes{H}", "swap"),
        no_data=NO_NODE,
        stacked=True,
        span=8,
    )


def _disks() -> t.Iterator[Panel]:
    yield bars(
        "Filesystems",
        "Part of each filesystem that is in use.",
        "percentunit",
        Query(
            f"1 - max by (mountpoint) (node_filesystem_avail_bytes{FILESYSTEMS}"
            f" / node_filesystem_size_bytes{FILESYSTEMS})",
            "{{mountpoint}}",
        ),
        no_data=NO_NODE,
        thresholds=panels.FULL,
        most=1,
        span=8,
    )
    yield lines(
        "Disk throughput",
        "What is read from each disk, and written to it (below zero).",
        "Bps",
        Query(f"rate(node_disk_read_bytes_total{DISKS}{RATE})", "{{device}} read"),
        Query(f"-rate(node_disk_written_bytes_total{DISKS}{RATE})", "{{device}} written"),
        no_data="node_exporter sees no disk of this host",
        least=None,
        span=8,
    )
    yield lines(
        "Disks busy",
        "Part of the time in which each disk had something to do. Fast disks do several things at once.",
        "percentunit",
        Query(f"rate(node_disk_io_time_seconds_total{DISKS}{RATE})", "{{device}}"),
        no_data="node_exporter sees no disk of this host",
        thresholds=panels.FULL,
        most=1,
        span=8,
    )


def _network() -> t.Iterator[Panel]:
    yield lines(
        "Network throughput",
        "What each network card receives, and sends (below zero).",
        "Bps",
        Query(f"rate(node_network_receive_bytes_total{CARDS}{RATE})", "{{device}} received"),
        Query(f"-rate(node_network_transmit_bytes_total{CARDS}{RATE})", "{{device}} sent"),
        no_data="node_exporter sees no network card of this host",
        least=None,
        span=8,
    )
    yield lines(
        "Network errors",
        "Packets that are damaged or dropped, received and sent.",
        "pps",
        Query(
            f"rate(node_network_receive_errs_total{CARDS}{RATE}) + rate(node_network_transmit_errs_total{CARDS}{RATE})",
            "{{device}} errors",
        ),
        Query(
            f"rate(node_network_receive_drop_total{CARDS}{RATE}) + rate(node_network_transmit_drop_total{CARDS}{RATE})",
            "{{device}} drops",
        ),
        no_data="node_exporter sees no network card of this host",
        span=8,
    )
    yield lines(
        "Packets sent again",
        "Part of the TCP segments that had to be sent again: the network loses or delays them.",
        "percentunit",
        Query(f"rate(node_netstat_Tcp_RetransSegs{H}{RATE}) / rate(node_netstat_Tcp_OutSegs{H}{RATE})", "sent again"),
        no_data=NO_NODE,
        thresholds=panels.rising(0.01, 0.05),
        span=8,
    )
