// One shrink of Frequent Directions: sweeps of `jacobi` diagonalise the Gram matrix of the buffer, `shrink` takes the smallest
// eigenvalue that must go off all larger ones and writes the (kept, n) rotation that makes the new sketch.
// `jacobi`: one sweep of two-sided cyclic Jacobi in one workgroup, n = 2 * pairs ≤ 256. A round rotates n / 2 disjoint pairs (the
// circle method of a tournament); the 2 × 2 blocks between two pairs are independent, so lanes share them freely.
// Rotations are x - s (y + r x), y + s (x - r y) with r = s / (1 + c) (Rutishauser): small turns then round to almost
// nothing, where c x - s y would stretch by the rounding of c each time. A sweep is a dispatch, not a loop, because
// lavapipe ends every loop of an invocation after 65,535 iterations in all, without a word.

struct Params { pairs: u32, first: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> g: array<f32>; // (n, n) symmetric; its diagonal ends as the eigenvalues
@group(0) @binding(2) var<storage, read_write> v: array<f32>; // (n, n) eigenvectors as rows
@group(0) @binding(3) var<storage, read_write> done: array<u32>; // (1): 1 when g is diagonal, and sweeps do nothing

override lanes: u32 = 64;
var<workgroup> rotation: array<vec2f, 128>; // s and r of each pair of a round
var<workgroup> sums: array<vec2f, lanes>;
var<workgroup> idle: u32;

fn first_of(round: u32, pair: u32, n: u32) -> u32 { return select((round + pair) % (n - 1u), n - 1u, pair == 0u); }
fn second_of(round: u32, pair: u32, n: u32) -> u32 { return (round + n - 1u - pair) % (n - 1u); }

fn turned(turn: vec2f, x: vec2f, y: vec2f) -> array<vec2f, 2> {
  return array<vec2f, 2>(x - turn.x * (y + turn.y * x), y + turn.x * (x - turn.y * y));
}

@compute @workgroup_size(lanes)
fn jacobi(@builtin(local_invocation_index) lane: u32) {
  let n = 2u * p.pairs;
  if (lane == 0u) { idle = select(done[0], 0u, p.first == 1u); }
  if (workgroupUniformLoad(&idle) == 1u) { return; }
  if (p.first == 1u) {
    for (var i = lane; i < n * n; i += lanes) { v[i] = select(0.0, 1.0, i / n == i % n); }
  }
  for (var round = 0u; round < n - 1u; round++) {
    storageBarrier();
    workgroupBarrier();
    for (var i = lane; i < p.pairs; i += lanes) {
      let a = first_of(round, i, n);
      let b = second_of(round, i, n);
      let between = g[a * n + b];
      var turn = vec2f(0.0);
      if (abs(between) > 1e-30) {
        let tau = clamp((g[b * n + b] - g[a * n + a]) / (2.0 * between), -1e15, 1e15);
        let tangent = select(-1.0, 1.0, tau >= 0.0) / (abs(tau) + sqrt(1.0 + tau * tau));
        let square = 1.0 + tangent * tangent;
        var cosine = inverseSqrt(square);
        cosine *= 1.5 - 0.5 * square * cosine * cosine; // drivers may give only 22 bits
        turn = vec2f(tangent * cosine, tangent * cosine / (1.0 + cosine));
      }
      rotation[i] = turn;
    }
    workgroupBarrier();
    for (var at = lane; at < p.pairs * p.pairs; at += lanes) {
      let i = at / p.pairs;
      let j = at % p.pairs;
      let a = first_of(round, i, n) * n;
      let b = second_of(round, i, n) * n;
      let c = first_of(round, j, n);
      let d = second_of(round, j, n);
      let left = turned(rotation[i], vec2f(g[a + c], g[a + d]), vec2f(g[b + c], g[b + d]));
      let both = turned(rotation[j], vec2f(left[0].x, left[1].x), vec2f(left[0].y, left[1].y));
      if (i == j) {
        let moved = rotation[i].x / (1.0 - rotation[i].x * rotation[i].y) * g[a + d];
        g[a + c] -= moved;
        g[b + d] += moved;
        g[b + c] = 0.0;
        g[a + d] = 0.0;
      } else {
        g[a + c] = both[0].x;
        g[b + c] = both[0].y;
        g[a + d] = both[1].x;
        g[b + d] = both[1].y;
      }
    }
    for (var at = lane; at < p.pairs * n; at += lanes) {
      let a = first_of(round, at / n, n) * n + at % n;
      let b = second_of(round, at / n, n) * n + at % n;
      let both = turned(rotation[at / n], vec2f(v[a], 0.0), vec2f(v[b], 0.0));
      v[a] = both[0].x;
      v[b] = both[1].x;
    }
  }
  storageBarrier();
  workgroupBarrier();
  var mine = vec2f(0.0); // squares off the diagonal, and of all
  for (var i = lane; i < n * n; i += lanes) {
    let square = g[i] * g[i];
    mine += vec2f(select(square, 0.0, i / n == i % n), square);
  }
  sums[lane] = mine;
  workgroupBarrier();
  if (lane == 0u) {
    var all = vec2f(0.0);
    for (var i = 0u; i < lanes; i++) { all += sums[i]; }
    done[0] = select(0u, 1u, all.x <= 1e-14 * all.y);
  }
}

// kept_rows[rank] = sqrt((value - cut) / value) * v[i] for the `kept` largest eigenvalues, where cut is the next one.
struct ShrinkParams { n: u32, kept: u32 }
@group(0) @binding(0) var<uniform> s: ShrinkParams;
@group(0) @binding(1) var<storage, read> values: array<f32>; // (n, n), eigenvalues on its diagonal
@group(0) @binding(2) var<storage, read> vectors: array<f32>;
@group(0) @binding(3) var<storage, read_write> kept_rows: array<f32>; // (kept, n)
@group(0) @binding(4) var<storage, read_write> shed: array<f32>; // (1): the sum of all cuts
var<workgroup> cut: f32;

fn rank_of(i: u32) -> u32 {
  let value = values[i * s.n + i];
  var rank = 0u;
  for (var j = 0u; j < s.n; j++) {
    let other = values[j * s.n + j];
    if (other > value) { rank++; } else if (other == value && j < i) { rank++; }
  }
  return rank;
}

@compute @workgroup_size(64)
fn shrink(@builtin(local_invocation_index) lane: u32) {
  for (var i = lane; i < s.n; i += 64u) {
    if (rank_of(i) == s.kept) { cut = max(values[i * s.n + i], 0.0); }
  }
  workgroupBarrier();
  for (var i = lane; i < s.n; i += 64u) {
    let rank = rank_of(i);
    if (rank < s.kept) {
      let value = values[i * s.n + i];
      let share = sqrt(max(value - cut, 0.0) / max(value, 1e-37));
      for (var k = 0u; k < s.n; k++) { kept_rows[rank * s.n + k] = share * vectors[i * s.n + k]; }
    }
  }
  if (lane == 0u) { shed[0] += cut; }
}
