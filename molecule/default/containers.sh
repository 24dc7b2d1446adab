#!/bin/sh
# Real containers for the simulated GPUs of a host; says which ones it starts.
set -eu

# Stand-ins for NVIDIA's container toolkit: Docker takes --gpus only when a program of this name is there, and
# --runtime nvidia only when it has been told of one. They do nothing, since there is no GPU to hand into the container.
hook=/usr/bin/nvidia-container-runtime-hook
if [ ! -e $hook ]; then
    printf '#!/bin/sh\nexit 0\n' >$hook
    chmod 755 $hook
    mkdir -p /etc/docker
    echo '{"runtimes": {"nvidia": {"path": "runc"}}}' >/etc/docker/daemon.json
    systemctl restart docker
fi
docker image inspect lab >/dev/null 2>&1 || tar -C / -c bin/busybox | docker import - lab >/dev/null

uuid() {
    sed -n "s/^$1.uuid = //p" /etc/simulated-gpu/scenario
}

start() { # NAME OPTION...
    name=$1
    shift
    docker container inspect "$name" >/dev/null 2>&1 || {
        docker run --detach --restart always --name "$name" "$@" lab /bin/busybox sleep 1000000 >/dev/null
        echo "$name"
    }
}

start thesis._.1001 --gpus "device=$(uuid gpu.0)" --label ds01.user=alice --label ds01.interface=orchestration
start C.4711 --gpus "device=$(uuid gpu.1.mig.0)"
start notebook --runtime nvidia --env "NVIDIA_VISIBLE_DEVICES=$(uuid gpu.1.mig.2)" --label ds01.user=bob --label ds01.managed=true
start web
