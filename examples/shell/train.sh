#!/bin/sh
# Softmax regression by stochastic gradient descent, in awk: names the species of an iris from four
# lengths. Two thirds of the flowers are trained on; the seed decides which, and their order.
#
#   sh train.sh DATA.csv RATE EPOCHS STANDARDISE SEED OUTPUT
#
# Writes OUTPUT/metrics.jsonl, a line an epoch, and OUTPUT/examples.jsonl, a line a tested flower.
set -eu
data=$1 rate=$2 epochs=$3 standardise=$4 seed=$5 output=$6

awk -F, -v rate="$rate" -v epochs="$epochs" -v standardise="$standardise" -v seed="$seed" \
    -v metrics="$output/metrics.jsonl" -v examples="$output/examples.jsonl" '
# Park and Miller: the same in every awk, and every product is exact in a double.
function uniform() { state = (state * 16807) % 2147483647; return state / 2147483647 }
function shuffle(order, n,    i, j, kept) {
  for (i = n; i > 1; i--) {
    j = 1 + int(uniform() * i)
    kept = order[i]; order[i] = order[j]; order[j] = kept
  }
}
# Fills p with the probability of each species of flower i.
function predict(i,    c, k, sum, largest) {
  largest = -1e9
  for (c = 1; c <= classes; c++) {
    p[c] = bias[c]
    for (k = 1; k <= 4; k++) p[c] += weight[c, k] * x[i, k]
    if (p[c] > largest) largest = p[c]
  }
  for (c = 1; c <= classes; c++) sum += p[c] = exp(p[c] - largest)
  for (c = 1; c <= classes; c++) p[c] /= sum
}
function answer(    c, best) {
  best = 1
  for (c = 2; c <= classes; c++) if (p[c] > p[best]) best = c
  return best
}
NR == 1 { next }
{
  n++
  for (k = 1; k <= 4; k++) x[n, k] = $k
  if (!($5 in number)) { number[$5] = ++classes; name[classes] = $5 }
  y[n] = number[$5]
}
END {
  state = seed + 1
  for (i = 1; i <= 10; i++) uniform()  # seeds beside each other begin alike
  for (i = 1; i <= n; i++) order[i] = i
  shuffle(order, n)
  trained = int(n * 2 / 3)
  if (standardise == "true")
    for (k = 1; k <= 4; k++) {
      mean = square = 0
      for (i = 1; i <= trained; i++) mean += x[order[i], k] / trained
      for (i = 1; i <= trained; i++) square += (x[order[i], k] - mean) ^ 2 / trained
      for (i = 1; i <= n; i++) x[i, k] = (x[i, k] - mean) / sqrt(square)
    }
  for (epoch = 1; epoch <= epochs; epoch++) {
    loss = 0
    shuffle(order, trained)
    for (i = 1; i <= trained; i++) {
      one = order[i]
      predict(one)
      loss -= log(p[y[one]]) / trained
      for (c = 1; c <= classes; c++) {
        error = (c == y[one]) - p[c]
        bias[c] += rate * error
        for (k = 1; k <= 4; k++) weight[c, k] += rate * error * x[one, k]
      }
    }
    right = test_loss = 0
    for (i = trained + 1; i <= n; i++) {
      predict(order[i])
      test_loss -= log(p[y[order[i]]]) / (n - trained)
      right += answer() == y[order[i]]
    }
    printf "{\"step\": %d, \"loss\": %.6f, \"test\": {\"accuracy\": %.4f, \"loss\": %.6f}}\n", \
      epoch, loss, 100 * right / (n - trained), test_loss > metrics
    fflush(metrics)
  }
  for (i = trained + 1; i <= n; i++) {
    predict(order[i])
    printf "{\"id\": \"flower %d\", \"prediction\": \"%s\", \"reference\": \"%s\", \"score\": %d}\n", \
      order[i], name[answer()], name[y[order[i]]], answer() == y[order[i]] > examples
  }
}' "$data"
