# Runs on a host: what node_exporter says in its sandbox, against the same program as plain root at the same time.
mapfile -d '' -t words < "/proc/$(systemctl show -P MainPID node_exporter)/cmdline"
for i in "${!words[@]}"; do
  case "${words[i]}" in --web.listen-address=*) words[i]=--web.listen-address=127.0.0.1:9199;; esac
done
"${words[@]}" 2>/dev/null & plain=$!
trap 'kill $plain' EXIT
python3 - <<'PYTHON'
import json
import time
import urllib.request

# Values that stand still, so that they have to be equal; of all other series, the name and labels have to be.
STILL = (
    "node_filesystem_size", "node_filesystem_readonly", "node_filesystem_device_error", "node_network_info",
    "node_network_up", "node_processes_max", "node_uname_info", "node_memory_MemTotal", "node_boot_time",
    "node_scrape_collector_success",
)


def series(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {name: value for name, _, value in lines if name.startswith("node_")}


time.sleep(1)
sandboxed, plain = series(9100), series(9199)
still = [name for name in sandboxed if name.startswith(STILL)]
print(json.dumps({
    "only_sandboxed": sorted(set(sandboxed) - set(plain)),
    "only_plain": sorted(set(plain) - set(sandboxed)),
    "different": [(name, sandboxed[name], plain.get(name)) for name in still if sandboxed[name] != plain.get(name)],
    "compared": len(still),
}))
PYTHON
