"""The GPUs of one host, with everything that DCGM or gpu_exporter reads of them."""

from __future__ import annotations

import typing as t

from .shared import links, panels, variables
from .shared.page import Page
from .shared.panels import Panel, Query, bars, lines, number
from .shared.tables import Column, Key, rows
from .shared.variables import CARD, GPUS, HOST, pick

G = pick(GPUS)
WHOLE = pick(GPUS, CARD)
INSTANCES = pick(GPUS, 'GPU_I_ID!=""')
NOT_IDLE = pick(GPUS, 'reason!="gpu_idle"')
VOLATILE = pick(GPUS, 'period="volatile"')
RATE = "[$__rate_interval]"
RANGE = "[$__range]"
EACH = "GPU {{gpu}}"
INSTANCE = "GPU {{gpu}} instance {{GPU_I_ID}} ({{GPU_I_PROFILE}})"
NO_GPU = "No exporter reports this GPU"
PROFILING = "Needs DCGM with profiling: dcgm_exporter_profiling"
NO_MIG = "No GPU here is cut into MIG instances"


def page() -> Page:
    """Return the dashboard."""
    board = Page(
        "nvidia-dcgm",
        "NVIDIA DCGM GPU metrics",
        "The GPUs of one host: utilisation, memory, temperatures, power, clocks, PCIe and errors, for each GPU and MIG"
        " instance, whether DCGM reports them or gpu_exporter does.",
        variables.site(),
        variables.host(),
        variables.gpus(),
    )
    board.alerts(HOST)
    board.row("Overview", *_overview())
    board.row("Utilisation and memory", *_utilisation())
    board.row("Temperature", *_temperature())
    board.row("Power and energy", *_power())
    board.row("Clocks", *_clocks())
    board.row("PCIe and NVLink", *_links())
    board.row("Errors", *_errors())
    board.row("MIG instances", *_mig())
    board.row("Profiling", *_profiling(), collapsed=True)
    return board


def _overview() -> t.Iterator[Panel]:
    whole_or_instances = (
        f"gpu:utilization:ratio{WHOLE} or on (instance, UUID)"
        f" avg without (GPU_I_ID, GPU_I_PROFILE) (gpu:utilization:ratio{INSTANCES})"
    )
    yield number(
        "Mean utilisation",
        "Mean of the GPUs: part of the time in which a kernel ran. Of a GPU that is cut, the mean of its instances.",
        "percentunit",
        f"avg({whole_or_instances})",
        no_data=NO_GPU,
        decimals=0,
    )
    yield number(
        "Memory of all GPUs",
        "Part of the memory of all GPUs together.",
        "percentunit",
        f"sum(gpu:memory_used:bytes{WHOLE}) / sum(gpu:memory_total:bytes{WHOLE})",
        no_data=NO_GPU,
        thresholds=panels.FULL,
        decimals=0,
    )
    yield number(
        "Hottest core",
        "Core temperature of the hottest GPU.",
        "celsius",
        f"max(gpu:core_temperature:celsius{G})",
        no_data=NO_GPU,
        thresholds=panels.CORE,
    )
    yield number(
        "Hottest VRAM",
        "Memory temperature of the GPU with the hottest memory.",
        "celsius",
        f"max(gpu:vram_temperature:celsius{G})",
        no_data="Nobody can read it of these cards: see gpu_exporter_nvapi",
        thresholds=panels.VRAM,
    )
    yield number(
        "Hottest hotspot",
        "Hotspot temperature of the GPU with the hottest one.",
        "celsius",
        f"max(gpu:hotspot_temperature:celsius{G})",
        no_data="Nobody can read it of these cards: see gpu_exporter_nvapi",
        thresholds=panels.HOTSPOT,
    )
    yield number(
        "Power of all GPUs", "Power that the boards draw together.", "watt", f"sum(gpu:power:watts{G})", no_data=NO_GPU
    )
    yield number(
        "Energy of all GPUs",
        "Energy that the boards took in the range of time.",
        "kwatth",
        f"sum(increase(gpu:energy:joules_total{G}{RANGE})) / 3.6e6",
        no_data="These cards count no energy, or the range of time is too short",
    )
    yield number(
        "XID errors",
        "XID errors in the range of time.",
        "short",
        f"sum(increase(gpu:xid_errors:total{G}{RANGE}))",
        no_data="No gpu_exporter reports this host, or the range of time is too short",
        thresholds=panels.NONE_WANTED,
        decimals=0,
    )
    yield _each()
    yield _users()


def _each() -> Panel:
    def of(record: str, *matchers: str) -> str:
        return f"max by (gpu, model, UUID) ({record}{pick(GPUS, *matchers)})"

    return rows(
        "Each GPU",
        "Each GPU as it is now. Errors are those of its whole life.",
        [Key("gpu", "GPU"), Key("model", "Model"), Key("UUID", "UUID")],
        [
            Column("State", "short", of("gpu:state:bool", 'state="ok"'), names=panels.OK),
            Column("Utilisation", "percentunit", of("gpu:utilization:ratio", CARD), decimals=0),
            Column("Memory", "percentunit", of("gpu:memory_used:ratio", CARD), panels.FULL, decimals=0),
            Column("Core", "celsius", of("gpu:core_temperature:celsius"), panels.CORE),
            Column("VRAM", "celsius", of("gpu:vram_temperature:celsius"), panels.VRAM),
            Column("Hotspot", "celsius", of("gpu:hotspot_temperature:celsius"), panels.HOTSPOT),
            Column("Fan", "percentunit", of("gpu:fan_speed:ratio"), decimals=0),
            Column("Power", "watt", of("gpu:power:watts")),
            Column("Limit", "watt", of("gpu:power_limit:watts")),
            Column("SM clock", "hertz", of("gpu:sm_clock:hertz")),
            Column("PCIe gen.", "short", of("gpu:pcie_link_generation:current")),
            Column("of", "short", of("gpu:pcie_link_generation:max")),
            Column("Lanes", "short", of("gpu:pcie_link_width:current")),
            Column(
                "ECC",
                "short",
                of("gpu:ecc_errors:total", 'type="uncorrected"', 'period="aggregate"'),
                panels.NONE_WANTED,
            ),
            Column("Remapped", "short", of("gpu:remapped_rows:count", 'cause="uncorrectable"'), panels.FEW_WANTED),
            Column("Last XID", "short", of("gpu:xid_last:code"), panels.FEW_WANTED),
        ],
        worst=["Core"],
        no_data=NO_GPU,
    )


def _users() -> Panel:
    def of(record: str) -> str:
        return (
            f"max by (gpu, gpu_slot, GPU_I_PROFILE, user) (ds01:gpu_slot_users{pick(HOST)}"
            f" * on (instance, slot_uuid) group_left (gpu, GPU_I_PROFILE) {record}{G})"
        )

    return rows(
        "Who has these GPUs",
        "Users who have these GPUs or MIG instances now, and how busy each of these is.",
        [
            Key("gpu", "GPU"),
            Key("gpu_slot", "Slot"),
            Key("GPU_I_PROFILE", "MIG profile"),
            Key("user", "User", (links.to_user(),)),
        ],
        [
            Column("Held", "short", of("ds01:gpu_slot_info"), names={"1": ("yes", panels.GREEN)}),
            Column("Utilisation", "percent", of("ds01:gpu_utilization_by_slot"), panels.falling(20, 5), decimals=0),
        ],
        worst=["Utilisation"],
        rising=True,
        no_data="Nobody has one of them, or no gpu_exporter says who does",
        height=6,
    )


def _utilisation() -> t.Iterator[Panel]:
    yield _ratio("Utilisation", "Part of the time in which a kernel ran.", f"gpu:utilization:ratio{WHOLE}", span=8)
    yield lines(
        "Memory in use",
        "Framebuffer memory in use. Of a GPU that is cut, the sum of its instances.",
        "bytes",
        Query(f"gpu:memory_used:bytes{WHOLE}", EACH),
        no_data=NO_GPU,
        span=8,
    )
    yield _ratio(
        "Memory accessed",
        "Part of the time in which the memory was read or written.",
        f"gpu:memory_copy_utilization:ratio{G}",
        span=8,
    )


def _temperature() -> t.Iterator[Panel]:
    unread = "Nobody can read it of these cards: see gpu_exporter_nvapi and gpu_exporter_bar0"
    for title, description, record, thresholds, no_data in (
        ("Core", "Temperature of the core.", "gpu:core_temperature:celsius", panels.CORE, NO_GPU),
        ("VRAM", "Temperature of the memory.", "gpu:vram_temperature:celsius", panels.VRAM, unread),
        (
            "Hotspot",
            "Temperature of the die's hottest spot.",
            "gpu:hotspot_temperature:celsius",
            panels.HOTSPOT,
            unread,
        ),
    ):
        query = Query(f"{record}{G}", EACH)
        yield lines(title, description, "celsius", query, no_data=no_data, thresholds=thresholds, least=None, span=6)
    yield _ratio(
        "Fans",
        "Speed of each GPU's fastest fan, as a part of its maximum.",
        f"gpu:fan_speed:ratio{G}",
        no_data="These cards have no fans of their own",
        span=6,
    )


def _power() -> t.Iterator[Panel]:
    yield lines(
        "Power",
        "Power that each board draws.",
        "watt",
        Query(f"gpu:power:watts{G}", EACH),
        no_data=NO_GPU,
        span=8,
    )
    yield _ratio(
        "Power of the limit",
        "Power that each board draws, as a part of what it may. A board at its limit lowers its clocks.",
        f"gpu:power:watts{G} / gpu:power_limit:watts{G}",
        no_data="Nobody reports the limits of these cards",
        span=8,
    )
    yield bars(
        "Energy",
        "Energy that each board took in the range of time.",
        "kwatth",
        Query(f"increase(gpu:energy:joules_total{G}{RANGE}) / 3.6e6", EACH),
        no_data="These cards count no energy, or the range of time is too short",
        span=8,
    )


def _clocks() -> t.Iterator[Panel]:
    yield lines(
        "SM clock",
        "Clock of the multiprocessors.",
        "hertz",
        Query(f"gpu:sm_clock:hertz{G}", EACH),
        no_data=NO_GPU,
        span=8,
    )
    yield lines(
        "Memory clock",
        "Clock of the memory.",
        "hertz",
        Query(f"gpu:memory_clock:hertz{G}", EACH),
        no_data=NO_GPU,
        span=8,
    )
    yield lines(
        "GPUs throttled by reason",
        "GPUs whose clocks are lowered, other than for want of work.",
        "short",
        Query(f"sum by (reason) (gpu:throttled:bool{NOT_IDLE})", "{{reason}}"),
        no_data="No exporter says why the clocks of these cards are lowered",
        span=8,
    )


def _links() -> t.Iterator[Panel]:
    on_request = "Needs DCGM with profiling, or pcie_throughput in gpu_exporter_config"
    yield lines(
        "PCIe throughput",
        "What each GPU sends, and receives (below zero).",
        "Bps",
        Query(f"gpu:pcie_sent:bytes_per_second{G}", f"{EACH} sent"),
        Query(f"-gpu:pcie_received:bytes_per_second{G}", f"{EACH} received"),
        no_data=on_request,
        least=None,
        span=6,
    )
    yield lines(
        "NVLink throughput",
        "What all NVLinks of each GPU carry.",
        "Bps",
        Query(f"gpu:nvlink_throughput:bytes_per_second{G}", EACH),
        no_data="These cards have no NVLink, or there is no DCGM",
        span=6,
    )
    yield lines(
        "PCIe replays",
        "PCIe packets that had to be sent again, per minute. A few are normal; many mean a bad slot, riser or card.",
        "short",
        Query(f"60 * rate(gpu:pcie_replays:total{G}{RATE})", EACH),
        no_data="Nobody counts the replays of these cards",
        span=6,
    )
    yield lines(
        "PCIe errors",
        "PCIe errors (AER) that the kernel counted, per minute, by severity.",
        "short",
        Query(f"60 * rate(gpu:pcie_errors:total{G}{RATE})", EACH + " {{severity}}"),
        no_data="The kernel counts no AER errors of these cards",
        span=6,
    )


def _errors() -> t.Iterator[Panel]:
    yield lines(
        "ECC errors",
        "ECC errors per hour. Corrected ones do no harm, but a card with many of them is suspicious.",
        "short",
        Query(
            f"3600 * rate(gpu:ecc_errors:total{VOLATILE}{RATE})",
            EACH + " {{type}}",
        ),
        no_data="These cards have no ECC, or it is off",
        span=8,
    )
    yield lines(
        "Rows and pages out of use",
        "Rows of memory that were replaced, and pages that were retired (cards before Ampere), for life.",
        "short",
        Query(f"gpu:remapped_rows:count{G}", EACH + " rows, {{cause}}"),
        Query(f"gpu:retired_pages:count{G}", EACH + " pages, {{cause}}"),
        no_data="These cards cannot replace memory",
        span=8,
    )
    yield rows(
        "XID errors by code",
        "Errors of the driver since gpu_exporter started, by code, and when each was last seen. NVIDIA's list of XID"
        " errors says what a code means.",
        [Key("gpu", "GPU"), Key("xid", "XID")],
        [
            Column("Number", "short", f"max by (gpu, xid) (gpu:xid_errors:by_code{G})"),
            Column(
                "Last seen", "dateTimeFromNow", f"1000 * max by (gpu, xid) (gpu:xid_last_seen:timestamp_seconds{G})"
            ),
        ],
        worst=["Last seen"],
        no_data="No XID error",
        span=8,
        height=8,
    )


def _mig() -> t.Iterator[Panel]:
    yield lines(
        "Utilisation of MIG instances",
        "Part of the time in which the instance's engines were busy.",
        "percentunit",
        Query(f"gpu:utilization:ratio{INSTANCES}", INSTANCE),
        no_data=f"{NO_MIG}, or DCGM's profiling is off (dcgm_exporter_profiling)",
        most=1,
    )
    yield lines(
        "Memory of MIG instances",
        "Framebuffer memory in use in each instance.",
        "bytes",
        Query(f"gpu:memory_used:bytes{INSTANCES}", INSTANCE),
        no_data=NO_MIG,
    )


def _profiling() -> t.Iterator[Panel]:
    for title, description, record in (
        ("Engines", "Part of the time in which any engine was busy.", "gpu:engine_activity:ratio"),
        ("SM activity", "Part of the multiprocessors that had work.", "gpu:sm_activity:ratio"),
        ("SM occupancy", "Warps on the multiprocessors, as a part of the most they hold.", "gpu:sm_occupancy:ratio"),
        ("Tensor cores", "Part of the time in which the tensor pipe was busy.", "gpu:tensor_activity:ratio"),
        ("Memory interface", "Part of the time in which the memory interface was busy.", "gpu:dram_activity:ratio"),
    ):
        yield _ratio(title, description, f"{record}{G}", no_data=PROFILING, legend=f"{EACH} {{{{GPU_I_ID}}}}", span=8)
    yield lines(
        "Video engines",
        "Load of the video encoder and decoder.",
        "percentunit",
        Query(f"gpu:encoder_utilization:ratio{G}", f"{EACH} encoder"),
        Query(f"gpu:decoder_utilization:ratio{G}", f"{EACH} decoder"),
        no_data=NO_GPU,
        most=1,
        span=8,
    )


def _ratio(
    title: str, description: str, expression: str, *, no_data: str = NO_GPU, legend: str = EACH, span: int
) -> Panel:
    query = Query(expression, legend)
    return lines(title, description, "percentunit", query, no_data=no_data, most=1, span=span)
