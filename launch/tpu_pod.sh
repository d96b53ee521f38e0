#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, installs HEAD on its workers and runs
# the train command on all of them. After a preemption it restarts training, on a
# new slice if necessary. Training continues if this script ends; the same call
# attaches to it again.
# Usage: bash launch/tpu_pod.sh train --name=SLICE --type=v5p-64 --spot -- \
#          --config=configs/stage1.py --config.init_from=gs://BUCKET/bagel \
#          --config.store=gs://BUCKET/store --workdir=gs://BUCKET/stage1
#        bash launch/tpu_pod.sh up|setup|tail|status|down --name=SLICE
# Options: --zone= and --project= (default: those of gcloud), --spot, --queued
# (uses a queued resource; needed in every call), --version= (runtime version;
# default: that of the type), --dry_run (prints the commands without running
# them).
set -euo pipefail
cd "$(dirname "$0")/.."

note() { echo "$*" >&2; }
fail() { note "Error: $1"; exit "${2:-1}"; }

action="${1:-}"
shift $(($# > 0))
name='' type='' version='' queued='' dry_run=''
location=() spot=() options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --zone=* | --project=*) location+=("$1") ;;
    --spot) spot=(--spot) ;;
    --queued) queued=1 ;;
    --dry_run) dry_run=1 ;;
    --) shift; options=("$@"); break ;;
    *) fail "unknown option $1; put options of the train command after --." ;;
  esac
  shift
done
[[ $action =~ ^(up|setup|train|tail|status|down)$ ]] ||
  fail 'expected an action: up, setup, train, tail, status or down.'
[ -n "$name" ] || fail '--name=SLICE is missing.'
[[ -n $type || ! $action =~ ^(up|train)$ ]] ||
  fail '--type= is missing; set it to an accelerator type, such as v5p-64.'
# On local disks, every worker would only have its shards of a checkpoint.
[[ $action != train || " ${options[*]}" == *' --workdir=gs://'* ]] ||
  fail 'the train command needs --workdir=gs://BUCKET/RUN, after --.'
case "$type" in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac

quoted() {  # prints words, quoted for a shell
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_.,:/=@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  echo "${line# }"
}

run() { if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi; }
tpus() { run gcloud compute tpus "$@" "${location[@]}" --quiet; }
on() { tpus tpu-vm ssh "$name" --worker="$1" --command="$2"; }
worker() { on all "bash synermedgen/code/launch/tpu_worker.sh $(quoted "$@")"; }

if [ -n "$queued" ]; then
  describe=(queued-resources describe "$name" '--format=value(state.state)')
  create=(queued-resources create "$name" --node-id="$name"
    --accelerator-type="$type" --runtime-version="${version:-$runtime}")
  delete=(queued-resources delete "$name" --force)
else
  describe=(tpu-vm describe "$name" '--format=value(state)')
  create=(tpu-vm create "$name"
    --accelerator-type="$type" --version="${version:-$runtime}")
  delete=(tpu-vm delete "$name")
fi

state='' had_one='' installed=''

look() {  # sets state: READY, NONE, or another state of gcloud
  local reply
  if [ -n "$dry_run" ]; then  # NONE on the first call, then READY
    tpus "${describe[@]}"
    state="$([ -z "$state" ] && echo NONE || echo READY)"
    return
  fi
  for _ in 1 2 3 4 5; do
    if reply="$(tpus "${describe[@]}" 2>&1)"; then
      state="$(grep -xE '[A-Z_]+' <<< "$reply" || echo UNKNOWN)"
      [ "$state" != ACTIVE ] || state=READY
      return
    fi
    state=NONE
    [[ $reply != *NOT_FOUND* ]] || return 0
    [ -n "$had_one" ] || break
    sleep 30  # a network error must not be taken for a lost slice
  done
  fail "gcloud does not return the state of $name: ${reply##*$'\n'}"
}

up() {  # creates the slice if necessary and waits until it is ready
  local before=''
  while look; [ "$state" != READY ]; do
    [ -n "$dry_run" ] || [ "$state" = "$before" ] || note "$name: $state"
    before="$state"
    case "$state" in
      NONE)
        installed=''
        if ! tpus "${create[@]}" "${spot[@]}"; then
          [ -n "$had_one" ] ||
            fail "cannot create slice $name; --queued waits for capacity."
          sleep 300  # it existed before, so capacity is missing for now
        fi ;;
      PREEMPTED | TERMINATED | SUSPENDED) had_one=1; down || sleep 30 ;;
      STOPPED | FAILED | UNKNOWN)
        fail "$name is $state; start it, or delete it (tpu_pod.sh down)." ;;
      *) sleep 30 ;;
    esac
  done
  had_one=1
}

setup() {  # installs HEAD on all workers, unless training is running
  local archive="runs/$name.tar.gz" unpack
  unpack='mkdir -p synermedgen && cd synermedgen && if flock -n lock true; then'
  unpack+=' rm -rf code && mkdir code &&'
  unpack+=' tar -xzf ../synermedgen.tar.gz -C code &&'
  unpack+=' bash code/launch/tpu_worker.sh setup; fi'
  [ -n "$dry_run" ] || git diff --quiet HEAD ||
    note 'Warning: uncommitted changes are not copied to the workers.'
  run mkdir -p runs &&
    run git archive --format=tar.gz --output="$archive" HEAD &&
    tpus tpu-vm scp "$archive" "$name:synermedgen.tar.gz" --worker=all &&
    on all "$unpack" &&
    installed=1
}

train() {
  local code misses=0 costs='is billed until it is deleted (tpu_pod.sh down).'
  while true; do
    up
    code=0
    { [ -n "$installed" ] || setup; } && worker start "${options[@]}" &&
      misses=0 && worker follow || code=$?
    case "$code" in
      0) break ;;
      75) note "$name: preempted and saved; restarting"; continue ;;
    esac
    sleep 60  # gcloud reports a preemption with a delay
    look
    [ "$state" = READY ] || continue
    # 255 is a failure of ssh itself; training may still be running.
    [ "$code" = 255 ] && [ $((misses += 1)) -lt 10 ] && continue
    fail "training ended with status $code; $name $costs" "$code"
  done
  [ -n "$dry_run" ] || note "Training is done; $name $costs"
}

down() { tpus "${delete[@]}"; }
tail() { on 0 'tail -n 50 -F synermedgen/log'; }
status() { look; [ -n "$dry_run" ] || echo "$name: $state"; }

"$action"
