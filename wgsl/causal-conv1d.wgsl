// y[t, c] = act(bias[c] + sum_k weight[c, k] x[t - (taps - 1) + k, c]),  x being 0 before the first token, act SiLU or
// nothing.            x, y (batch, tokens, channels)     weight (channels, taps), the last tap is the present token
// Lanes are neighbouring channels; an invocation walks `span` tokens of one channel with the last taps in registers.
// The gradients start from g = dL/d(sum): `slopes` makes it from dy where there is an activation, else g is dy.
import package::lib::elem::elem;

struct Params { batch: u32, tokens: u32, channels: u32, has_bias: u32, has_silu: u32, slices: u32 }
override taps: u32 = 4;
const span = 32u;
alias Window = array<f32, taps>;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> weight: array<elem>;
@group(0) @binding(3) var<storage, read> bias: array<elem>; // read only where has_bias is 1
@group(0) @binding(4) var<storage, read_write> y: array<elem>;

fn weights_of(channel: u32) -> Window {
  var result: Window;
  for (var k = 0u; k < taps; k++) { result[k] = f32(weight[channel * taps + k]); }
  return result;
}

fn bias_of(channel: u32) -> f32 {
  if (p.has_bias == 0u) { return 0.0; }
  return f32(bias[channel]);
}

fn sigmoid(v: f32) -> f32 { return 1.0 / (1.0 + exp(-v)); }

// Drops the oldest value and puts `next` at the end.
fn push(window: ptr<function, Window>, next: f32) {
  for (var k = 1u; k < taps; k++) { (*window)[k - 1u] = (*window)[k]; }
  (*window)[taps - 1u] = next;
}

// The window as it is just before token `first`.
fn window_before(batch_row: u32, first: u32, channel: u32) -> Window {
  var result: Window;
  for (var k = 1u; k < taps; k++) {
    if (first + k >= taps) { result[k] = f32(x[(batch_row + first + k - taps) * p.channels + channel]); }
  }
  return result;
}

fn weighted(window: Window, weights: Window) -> f32 {
  var sum = 0.0;
  for (var k = 0u; k < taps; k++) { sum += weights[k] * window[k]; }
  return sum;
}

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let weights = weights_of(channel);
  let offset = bias_of(channel);
  let row = group.z * p.tokens;
  let first = group.y * span;
  var window = window_before(row, first, channel);
  for (var t = first; t < min(first + span, p.tokens); t++) {
    let at = (row + t) * p.channels + channel;
    push(&window, f32(x[at]));
    let sum = offset + weighted(window, weights);
    y[at] = elem(select(sum, sum * sigmoid(sum), p.has_silu != 0u));
  }
}

// g = dy · silu'(sum), the sum being made again
@group(0) @binding(4) var<storage, read> dy: array<elem>;
@group(0) @binding(5) var<storage, read_write> g: array<elem>;

@compute @workgroup_size(64)
fn backward_slopes(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let weights = weights_of(channel);
  let offset = bias_of(channel);
  let row = group.z * p.tokens;
  let first = group.y * span;
  var window = window_before(row, first, channel);
  for (var t = first; t < min(first + span, p.tokens); t++) {
    let at = (row + t) * p.channels + channel;
    push(&window, f32(x[at]));
    let sum = offset + weighted(window, weights);
    let s = sigmoid(sum);
    g[at] = elem(f32(dy[at]) * s * (1.0 + sum * (1.0 - s)));
  }
}

// dx[t, c] = sum_k weight[c, k] g[t + (taps - 1) - k, c]: the same walk from the last token to the first
@group(0) @binding(3) var<storage, read> slope: array<elem>; // what slopes saved as g, or dy
@group(0) @binding(4) var<storage, read_write> dx: array<elem>;

@compute @workgroup_size(64)
fn backward_x(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let weights = weights_of(channel);
  let row = group.z * p.tokens;
  let first = group.y * span;
  let end = min(first + span, p.tokens);
  var window: Window;
  for (var k = 1u; k < taps; k++) {
    let t = end + taps - 1u - k;
    if (t < p.tokens) { window[k] = f32(slope[(row + t) * p.channels + channel]); }
  }
  for (var t = end; t > first; t--) {
    let at = (row + t - 1u) * p.channels + channel;
    push(&window, f32(slope[at]));
    dx[at] = elem(weighted(window, weights));
  }
}

// dweight[c, k] = sum over batch and t of g[t, c] x[t - (taps - 1) + k, c] and dbias[c] = sum of g, in two stages: each
// of `slices` token ranges sums its own rows, then column-sum.wgsl adds the slices.
@group(0) @binding(4) var<storage, read_write> weight_sums: array<f32>; // (slices, channels, taps)
@group(0) @binding(5) var<storage, read_write> bias_sums: array<f32>; // (slices, channels)

@compute @workgroup_size(64)
fn backward_weight(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let rows = p.batch * p.tokens;
  let rows_each = (rows + p.slices - 1u) / p.slices;
  var sums: Window;
  var total = 0.0;
  var window = Window();
  for (var row = group.y * rows_each; row < min(rows, (group.y + 1u) * rows_each); row++) {
    let t = row % p.tokens;
    if (t == 0u || row == group.y * rows_each) { window = window_before(row - t, t, channel); }
    push(&window, f32(x[row * p.channels + channel]));
    let value = f32(slope[row * p.channels + channel]);
    for (var k = 0u; k < taps; k++) { sums[k] += value * window[k]; }
    total += value;
  }
  let at = group.y * p.channels + channel;
  for (var k = 0u; k < taps; k++) { weight_sums[at * taps + k] = sums[k]; }
  bias_sums[at] = total;
}
