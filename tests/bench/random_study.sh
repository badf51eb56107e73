# A study whose sweep is N random trials of a tiny model: random_study NAME N > study.toml. Sourced.
random_study() {
  cat <<TOML
schema = 1
name = "$1"
[data]
source = "teacher"
[model]
width = 64
depth = 2
head_size = 16
context = 32
[train]
steps = 100
batch = 4
[space]
lr = { min = 1e-3, max = 1e-2 }
wd = { min = 0.05, max = 0.2 }
[search]
method = "random"
max_trials = $2
extensions = 0
TOML
}
