#!/usr/bin/env bash
# Real patients: prepares their MR-CT and PET-CT pairs, trains SynerMedGen from
# the small base and the other systems of the arena under equal budgets, ranks them
# on held-out patients, and writes a report for each budget. Prints the costs of
# training first. A second run resumes.
# Usage: bash launch/real.sh [folder] [directory, runs/real by default]
#          [options of synermedgen_jax.arena]
# Without a folder, or with '', git obtains the public set: CT, PET and T1 MR
# of 51 sarcoma patients, CC BY 3.0, 198 MB, from SOURCE=, by default
# https://github.com/theibsi/data_sets.
# A folder has the layout of that set. With REGION=pelvis, brain or whole_body,
# it has that of docs/your_data.md: patient/ct.nii.gz, ...
set -euo pipefail
cd "$(dirname "$0")/.."
source="${SOURCE:-https://github.com/theibsi/data_sets}"
region="${REGION:-}"
folder='' run=runs/real
if [ $# -gt 0 ] && [[ $1 != --* ]]; then folder="$1" && shift; fi
if [ $# -gt 0 ] && [[ $1 != --* ]]; then run="$1" && shift; fi

fail() { printf 'Error: %s\n' "$*" >&2 && exit 1; }

# Clones the NIfTI files of the public set, and no DICOM, into a new folder.
obtain() {  # folder
  local new="$1.partial" problem
  command -v git > /dev/null ||
    fail 'git: is not installed; install it, or name a folder of patients.'
  echo "Obtaining 198 MB from $source ..."
  rm -rf "$new" && mkdir -p "$(dirname "$1")"
  if ! problem="$(export GIT_TERMINAL_PROMPT=0 &&
    git clone --quiet --depth=1 --filter=blob:none --sparse \
      "$source" "$new" 2>&1 &&
    git -C "$new" sparse-checkout set ibsi_validation/nifti 2>&1)"; then
    problem="$(grep -am1 '^fatal: ' <<< "$problem" || true)"
    fail "$source: cannot be cloned (${problem#fatal: }); name a folder of" \
      'patients, or another address with SOURCE=.'
  fi
  mv "$new" "$1"
}

if [ -z "$folder" ]; then
  [ -z "$region" ] || fail "REGION=$region: needs a folder."
  folder="$run/data"
  [ -d "$folder" ] || obtain "$folder"
elif [ ! -d "$folder" ]; then
  fail "$folder: no such folder."
elif [ -z "$region" ] &&
  [ -z "$(find -L "$folder" -type d -name 'STS_*' -print -quit)" ]; then
  fail "$folder: holds no patient of the public set (STS_001, ...); for other" \
    "patients, name their region: REGION=pelvis bash launch/real.sh $folder"
fi
layout=(--dataset=ibsi_sts)
if [ -n "$region" ]; then
  # The volume with the smallest field of view defines the grid.
  reference=mr,ct,t1,lge
  [ "$region" != whole_body ] || reference=ct
  layout=(--dataset=folder --region="$region" --reference="$reference")
fi
# shellcheck source=launch/setup.sh
source launch/setup.sh requirements.txt

step() { printf '\n== %s\n' "$1"; }

step 'Patients to slice store'
# Nothing is chosen by validation scores, so no patient is spent on them.
python -m synermedgen_jax.prepare "${layout[@]}" --root="$folder" \
  --canvas=64 --frame=body --register=rigid --skip_bad --val=0 --test=0.25 \
  --store="$run/store"

step 'Arena'
python -m synermedgen_jax.arena --store="$run/store" --run="$run/arena" \
  --systems=synermedgen,unet,pix2pix,cyclegan,bbdm,resvit,syndiff,selfrdb \
  --slices=12 "$@"

for workdir in "$run"/arena/*/0/synermedgen; do
  [ -e "$workdir/evaluation/metrics.json" ] || continue
  step "Report of $workdir"
  python -m synermedgen_jax.report --workdir="$workdir"
done
