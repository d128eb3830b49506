#!/bin/bash
# ray_node.sh DIRECTORY: one node of a Ray cluster, as NeMo-RL's ray.sub starts it by srun. The first task is the head.
set -eu
# Start no workers ahead: a raylet would start one for each CPU with the first driver. The bounds are for a machine that
# is busy with other tests.
export RAY_prestart_worker_first_driver=0 RAY_enable_worker_prestart=0
export RAY_raylet_start_wait_time_s=300 RAY_gcs_server_port_wait_time_s=300 RAY_worker_register_timeout_seconds=300
export RAY_health_check_failure_threshold=100
common=(--disable-usage-stats --num-cpus 2 --object-store-memory 80000000 --runtime-env-agent-port 52003
  --resources "{\"$(hostname)\": 8}" --node-ip-address "$(hostname -i)")

# A raylet waits 15 s for its agents' port files in its session directory, also on a busy machine. So write them before:
# -1 for the agents that a Ray without a dashboard does not have.
leave_ports() {
  local raylet session node
  until raylet=$(pgrep --full --list-full '/raylet/raylet .*--node_id='); do sleep 0.2; done
  session=$(grep -oP -- '--session_dir=\K\S+' <<<"$raylet")
  node=$(grep -oP -- '--node_id=\K\S+' <<<"$raylet")
  for name in metrics_agent metrics_export dashboard_agent_listen; do printf -- -1 >"$session/${name}_port_$node"; done
  printf 52003 >"$session/runtime_env_agent_port_$node"
}

# `ray start` waits 30 s for its raylet (ray 2.60 has no setting), and then ends and leaves its processes behind. Try
# again.
start() {
  for _ in 1 2 3; do
    leave_ports &
    ray start "$@" "${common[@]}" && return
    kill $! 2>/dev/null || true
    ray stop --force || true
  done
  return 1
}

if [ "$SLURM_PROCID" = 0 ]; then
  start --head --port 6379 --include-dashboard false
  hostname -i >"$1/head.new"
  mv "$1/head.new" "$1/head"
else
  until [ -e "$1/head" ]; do sleep 0.1; done
  start --address "$(<"$1/head"):6379"
fi
touch "$1/up.$(hostname)"
sleep infinity
