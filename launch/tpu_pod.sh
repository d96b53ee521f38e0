#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, installs HEAD on its workers, runs
# the train command on all of them, and again after a preemption, on a new slice
# if need be. Training outlives this script: the same call finds it again.
# Usage: bash launch/tpu_pod.sh train --name=SLICE --type=v5p-64 --spot -- \
#          --config=configs/stage1.py --config.init_from=gs://BUCKET/bagel \
#          --config.store=gs://BUCKET/store --workdir=gs://BUCKET/stage1
#        bash launch/tpu_pod.sh up|setup|tail|status|down --name=SLICE
# Options: --zone= and --project= (or else gcloud's own), --spot, --queued (for
# a queued resource; in every call), --version= of the runtime (or else the
# type's), --dry_run (prints the commands, runs none).
set -euo pipefail
cd "$(dirname "$0")/.."

note() { echo "$*" >&2; }
fail() { note "Error: $1"; exit "${2:-1}"; }

action="${1:-}"
shift $(($# > 0))
name='' type='' version='' queued='' dry_run=''
where=() spot=() options=()
while [ $# -gt 0 ]; do
  case "$1" in
    --name=*) name="${1#*=}" ;;
    --type=*) type="${1#*=}" ;;
    --version=*) version="${1#*=}" ;;
    --zone=* | --project=*) where+=("$1") ;;
    --spot) spot=(--spot) ;;
    --queued) queued=1 ;;
    --dry_run) dry_run=1 ;;
    --) shift; options=("$@"); break ;;
    *) fail "unknown option $1; those of the train command go after --." ;;
  esac
  shift
done
[[ $action =~ ^(up|setup|train|tail|status|down)$ ]] ||
  fail 'say what to do: up, setup, train, tail, status or down.'
[ -n "$name" ] || fail '--name=SLICE is missing.'
[[ -n $type || ! $action =~ ^(up|train)$ ]] ||
  fail '--type= is missing, the accelerator type, such as v5p-64.'
# On its own disk, each worker would keep its own part of every checkpoint.
[[ $action != train || " ${options[*]}" == *' --workdir=gs://'* ]] ||
  fail 'the train command needs --workdir=gs://BUCKET/RUN, after --.'
case "$type" in
  v6e-*) runtime=v2-alpha-tpuv6e ;;
  v5p-*) runtime=v2-alpha-tpuv5 ;;
  v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
  *) runtime=tpu-ubuntu2204-base ;;
esac

quoted() {  # words, as one would type them
  local word line=''
  for word; do
    [[ $word =~ ^[A-Za-z0-9_.,:/=@%+-]+$ ]] || word="'${word//\'/\'\\\'\'}'"
    line+=" $word"
  done
  echo "${line# }"
}

run() { if [ -n "$dry_run" ]; then quoted "$@"; else "$@"; fi; }
tpus() { run gcloud compute tpus "$@" "${where[@]}" --quiet; }
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

look() {  # sets state: READY, NONE, or what else gcloud calls it
  local said
  if [ -n "$dry_run" ]; then  # as if there were none, and then one
    tpus "${describe[@]}"
    state="$([ -z "$state" ] && echo NONE || echo READY)"
    return
  fi
  for _ in 1 2 3 4 5; do
    if said="$(tpus "${describe[@]}" 2>&1)"; then
      state="$(grep -xE '[A-Z_]+' <<< "$said" || echo UNKNOWN)"
      [ "$state" != ACTIVE ] || state=READY
      return
    fi
    state=NONE
    [[ $said != *NOT_FOUND* ]] || return 0
    [ -n "$had_one" ] || break
    sleep 30  # the network; taken for a lost slice, it would cost the slice
  done
  fail "gcloud does not say how $name is: ${said##*$'\n'}"
}

up() {  # until the slice is ready, whatever has become of it
  local before=''
  while look; [ "$state" != READY ]; do
    [ -n "$dry_run" ] || [ "$state" = "$before" ] || note "$name: $state"
    before="$state"
    case "$state" in
      NONE)
        installed=''
        if ! tpus "${create[@]}" "${spot[@]}"; then
          [ -n "$had_one" ] ||
            fail "no slice $name; --queued waits until there is one."
          sleep 300  # it was to be had before: there is no room at the moment
        fi ;;
      PREEMPTED | TERMINATED | SUSPENDED) had_one=1; down || sleep 30 ;;
      STOPPED | FAILED | UNKNOWN)
        fail "$name is $state: start it, or take it down." ;;
      *) sleep 30 ;;
    esac
  done
  had_one=1
}

setup() {  # HEAD to every worker; where training goes on, its code stays
  local archive="runs/$name.tar.gz" unpack
  unpack='mkdir -p synermedgen && cd synermedgen && if flock -n lock true; then'
  unpack+=' rm -rf code && mkdir code &&'
  unpack+=' tar -xzf ../synermedgen.tar.gz -C code &&'
  unpack+=' bash code/launch/tpu_worker.sh setup; fi'
  [ -n "$dry_run" ] || git diff --quiet HEAD ||
    note 'What is not committed does not go to the workers.'
  run mkdir -p runs &&
    run git archive --format=tar.gz --output="$archive" HEAD &&
    tpus tpu-vm scp "$archive" "$name:synermedgen.tar.gz" --worker=all &&
    on all "$unpack" &&
    installed=1
}

train() {
  local code misses=0 costs='is still up, and costs, until it is taken down.'
  while true; do
    up
    code=0
    { [ -n "$installed" ] || setup; } && worker start "${options[@]}" &&
      misses=0 && worker follow || code=$?
    case "$code" in
      0) break ;;
      75) note "$name: preempted and saved, starting again"; continue ;;
    esac
    sleep 60  # a slice that is being taken away says so only after a while
    look
    [ "$state" = READY ] || continue
    # 255 is ssh's own: the slice is not to be reached, training may go on.
    [ "$code" = 255 ] && [ $((misses += 1)) -lt 10 ] && continue
    fail "training ended with status $code; $name $costs" "$code"
  done
  [ -n "$dry_run" ] || note "Training is done; $name $costs"
}

down() { tpus "${delete[@]}"; }
tail() { on 0 'tail -n 50 -F synermedgen/log'; }
status() { look; [ -n "$dry_run" ] || echo "$name: $state"; }

"$action"
