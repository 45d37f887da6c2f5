// h_t = exp(d_t A) h_{t-1} + d_t B_t x_t,    y_t = C_t · h_t + D x_t,    d = delta + bias, or softplus of that
//   x, delta, y (batch, tokens, channels)   a (channels, n)   b, c (batch, tokens, n)   skip, bias (channels)
// Chunks of `chunk` tokens run at once, in three phases: chunk_states scans each from zero, carry joins their ends into
// the state before each chunk, forward scans again from there. Lanes are neighbouring channels, each with its n states
// in registers. `packed` holds what all lanes read in f32 quads, n padded with zeros: B and C of each token
// (batch, tokens, 2, quads), then A and (D, bias) of each channel (quads + 1, channels).
// states (batch, slots, quads, channels): what chunk_states leaves in slot k + 1 is chunk k alone until carry ran.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::softplus::softplus;

struct Params {
  tokens: u32, channels: u32, n: u32, rows: u32, // rows = batch · tokens
  slots: u32, softplus: u32, has_skip: u32, has_bias: u32, has_state: u32,
}
override quads: u32 = 4;
override chunk: u32 = 64;
alias State = array<vec4f, quads>;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> b: array<elem>;
@group(0) @binding(2) var<storage, read> c: array<elem>;
@group(0) @binding(3) var<storage, read_write> packing: array<vec4f>;

@compute @workgroup_size(64)
fn pack_tokens(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
               @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  if (i >= p.rows * 2u * quads) { return; }
  let row = i / (2u * quads);
  let first = (i % quads) * 4u;
  var values = vec4f();
  for (var k = 0u; k < min(4u, p.n - first); k++) {
    let at = row * p.n + first + k;
    if (i % (2u * quads) < quads) { values[k] = f32(b[at]); } else { values[k] = f32(c[at]); }
  }
  packing[i] = values;
}

@group(0) @binding(1) var<storage, read> a: array<elem>;
@group(0) @binding(2) var<storage, read> skip: array<elem>; // read only where has_skip is 1
@group(0) @binding(4) var<storage, read> bias: array<elem>; // read only where has_bias is 1

@compute @workgroup_size(64)
fn pack_channels(@builtin(global_invocation_id) id: vec3u) {
  let channel = id.x;
  if (channel >= p.channels) { return; }
  let quad = id.y;
  var values = vec4f();
  if (quad < quads) {
    for (var k = 0u; k < min(4u, p.n - quad * 4u); k++) { values[k] = f32(a[channel * p.n + quad * 4u + k]); }
  } else {
    if (p.has_skip != 0u) { values.x = f32(skip[channel]); }
    if (p.has_bias != 0u) { values.y = f32(bias[channel]); }
  }
  packing[p.rows * 2u * quads + quad * p.channels + channel] = values;
}

@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> delta: array<elem>;
@group(0) @binding(3) var<storage, read> packed: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> states: array<vec4f>;
@group(0) @binding(5) var<storage, read_write> totals: array<f32>; // (batch, slots - 1, channels): sum of d of a chunk

fn of_channel(quad: u32, channel: u32) -> vec4f { return packed[p.rows * 2u * quads + quad * p.channels + channel]; }
fn rates_of(channel: u32) -> State {
  var rates: State;
  for (var q = 0u; q < quads; q++) { rates[q] = of_channel(q, channel); }
  return rates;
}
fn slot(batch: u32, index: u32, channel: u32) -> u32 { return (batch * p.slots + index) * quads * p.channels + channel; }
fn step_size(at: u32, offset: f32) -> f32 {
  let v = f32(delta[at]) + offset;
  if (p.softplus == 0u) { return v; }
  return softplus(v);
}

@compute @workgroup_size(64)
fn chunk_states(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let rates = rates_of(channel);
  let offset = of_channel(quads, channel).y;
  var h: State;
  var total = 0.0;
  for (var t = group.y * chunk; t < min((group.y + 1u) * chunk, p.tokens); t++) {
    let row = group.z * p.tokens + t;
    let d = step_size(row * p.channels + channel, offset);
    let u = d * f32(x[row * p.channels + channel]);
    for (var q = 0u; q < quads; q++) { h[q] = exp(d * rates[q]) * h[q] + u * packed[row * 2u * quads + q]; }
    total += d;
  }
  for (var q = 0u; q < quads; q++) { states[slot(group.z, group.y + 1u, channel) + q * p.channels] = h[q]; }
  totals[(group.z * (p.slots - 1u) + group.y) * p.channels + channel] = total;
}

// Starts from `state` (batch, channels, n) and leaves the last slot there, where has_state is 1; else starts from zero.
@group(0) @binding(6) var<storage, read_write> state: array<f32>;

@compute @workgroup_size(64)
fn carry(@builtin(global_invocation_id) id: vec3u) {
  let channel = id.x;
  let quad = id.y;
  if (channel >= p.channels) { return; }
  let rate = of_channel(quad, channel);
  let base = (id.z * p.channels + channel) * p.n + quad * 4u;
  let count = select(0u, min(4u, p.n - quad * 4u), p.has_state != 0u);
  var h = vec4f();
  for (var k = 0u; k < count; k++) { h[k] = state[base + k]; }
  states[slot(id.z, 0u, channel) + quad * p.channels] = h;
  for (var k = 1u; k < p.slots; k++) {
    let at = slot(id.z, k, channel) + quad * p.channels;
    h = exp(rate * totals[(id.z * (p.slots - 1u) + k - 1u) * p.channels + channel]) * h + states[at];
    states[at] = h;
  }
  for (var k = 0u; k < count; k++) { state[base + k] = h[k]; }
}

@group(0) @binding(4) var<storage, read> boundaries: array<vec4f>; // what carry left in states
@group(0) @binding(5) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let rates = rates_of(channel);
  let last = of_channel(quads, channel);
  var h: State;
  for (var q = 0u; q < quads; q++) { h[q] = boundaries[slot(group.z, group.y, channel) + q * p.channels]; }
  for (var t = group.y * chunk; t < min((group.y + 1u) * chunk, p.tokens); t++) {
    let row = group.z * p.tokens + t;
    let at = row * p.channels + channel;
    let value = f32(x[at]);
    let d = step_size(at, last.y);
    var sum = vec4f();
    for (var q = 0u; q < quads; q++) {
      h[q] = exp(d * rates[q]) * h[q] + d * value * packed[row * 2u * quads + q];
      sum += h[q] * packed[(row * 2u + 1u) * quads + q];
    }
    y[at] = elem(dot(sum, vec4f(1.0)) + last.x * value);
  }
}
