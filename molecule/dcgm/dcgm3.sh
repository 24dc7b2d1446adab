#!/bin/sh
# Installs DCGM 3 as its owner would: a source of his own for the very repository that the role uses, with a key of its
# own. Argument: URL of the lab's mirror.
set -eu
[ ! -e /etc/apt/sources.list.d/cuda.list ] || exit 0
distribution=$(. /etc/os-release && echo "$ID$VERSION_ID" | tr -d .)
repository=$1/developer.download.nvidia.com/compute/cuda/repos/$distribution/x86_64
python3 -c 'import sys, urllib.request as u; u.urlretrieve(*sys.argv[1:])' \
  "$repository/cuda-archive-keyring.gpg" /usr/share/keyrings/cuda-archive-keyring.gpg
echo "deb [signed-by=/usr/share/keyrings/cuda-archive-keyring.gpg] $repository/ /" >/etc/apt/sources.list.d/cuda.list
apt-get update -qq -o Dir::Etc::sourcelist=/etc/apt/sources.list.d/cuda.list -o Dir::Etc::sourceparts=-
apt-get install -qq --yes datacenter-gpu-manager >/dev/null
systemctl enable --now nvidia-dcgm
echo new
