// Gradients of selective-scan.wgsl, whose packed and boundary states they read. With g_t what later tokens send to h_t:
//   e_t = g_t + C_t dy_t,   g_{t-1} = exp(d_t A) e_t,   dx_t = d_t B_t · e_t + D dy_t,   dB_t = sum_c d_t x_t e_t
//   dd_t = e_t · (A exp(d_t A) h_{t-1} + B_t x_t),   dA = sum_t d_t exp(d_t A) h_{t-1} e_t,   dC_t = sum_c dy_t h_t
// The three phases run from the last chunk to the first. Then sums over channels and sums over states are made by who
// owns them: a lane of backward_tokens owns four states and walks channels, one of backward_channels owns a channel and
// walks its states, so nothing is added across lanes. backward_channels overwrites `slopes` with its partial sums of dA,
// dD and dbias: backward_tokens must run before it.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::softplus::softplus;

struct Params {
  tokens: u32, channels: u32, n: u32, rows: u32,
  slots: u32, chunks: u32, softplus: u32, slices: u32, has_skip: u32, has_bias: u32,
}
override quads: u32 = 4;
override chunk: u32 = 64;
alias State = array<vec4f, quads>;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> delta: array<elem>;
@group(0) @binding(2) var<storage, read> dy: array<elem>;
@group(0) @binding(3) var<storage, read> packed: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> slopes: array<vec4f>; // (batch, chunks, quads + 1, channels)
@group(0) @binding(5) var<storage, read_write> totals: array<f32>; // (batch, chunks, channels), sum of d of a chunk

fn of_channel(quad: u32, channel: u32) -> vec4f { return packed[p.rows * 2u * quads + quad * p.channels + channel]; }
fn slot(batch: u32, index: u32, channel: u32) -> u32 {
  return (batch * p.chunks + index) * (quads + 1u) * p.channels + channel;
}
fn step_size(v: f32) -> f32 {
  if (p.softplus == 0u) { return v; }
  return softplus(v);
}

// What chunk k alone sends to the end of chunk k - 1; the dispatch starts at chunk 1.
@compute @workgroup_size(64)
fn chunk_slopes(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  var rates: State;
  for (var q = 0u; q < quads; q++) { rates[q] = of_channel(q, channel); }
  let offset = of_channel(quads, channel).y;
  let first = (group.y + 1u) * chunk;
  var g: State;
  var total = 0.0;
  for (var t = min(first + chunk, p.tokens); t > first; t--) {
    let row = group.z * p.tokens + t - 1u;
    let d = step_size(f32(delta[row * p.channels + channel]) + offset);
    let slope = f32(dy[row * p.channels + channel]);
    for (var q = 0u; q < quads; q++) {
      g[q] = exp(d * rates[q]) * (g[q] + slope * packed[(row * 2u + 1u) * quads + q]);
    }
    total += d;
  }
  for (var q = 0u; q < quads; q++) { slopes[slot(group.z, group.y, channel) + q * p.channels] = g[q]; }
  totals[(group.z * p.chunks + group.y + 1u) * p.channels + channel] = total;
}

@compute @workgroup_size(64)
fn carry_slopes(@builtin(global_invocation_id) id: vec3u) {
  let channel = id.x;
  if (channel >= p.channels) { return; }
  let rate = of_channel(id.y, channel);
  var g = vec4f();
  slopes[slot(id.z, p.chunks - 1u, channel) + id.y * p.channels] = g;
  for (var k = p.chunks - 1u; k > 0u; k--) {
    let at = slot(id.z, k - 1u, channel) + id.y * p.channels;
    g = exp(rate * totals[(id.z * p.chunks + k) * p.channels + channel]) * g + slopes[at];
    slopes[at] = g;
  }
}

@group(0) @binding(4) var<storage, read> ends: array<vec4f>; // what carry_slopes left in slopes
@group(0) @binding(5) var<storage, read> boundaries: array<vec4f>; // (batch, slots, quads, channels), of the forward pass
@group(0) @binding(6) var<storage, read> x: array<elem>;
@group(0) @binding(7) var<storage, read_write> token_sums: array<vec4f>; // (slices, batch, tokens, 2, quads)

// Neighbouring lanes are the quads of one channel, then the next slice; slice s has the channels s, s + slices, ...
@compute @workgroup_size(64)
fn backward_tokens(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let quad = (group.x * 64u + lane) % quads;
  let slice = (group.x * 64u + lane) / quads;
  if (slice >= p.slices) { return; }
  let first = group.y * chunk;
  let count = min(chunk, p.tokens - first);
  let row = group.z * p.tokens + first;
  var db: array<vec4f, chunk>;
  var dc: array<vec4f, chunk>;
  for (var channel = slice; channel < p.channels; channel += p.slices) {
    let rate = of_channel(quad, channel);
    let offset = of_channel(quads, channel).y;
    var h = boundaries[((group.z * p.slots + group.y) * quads + quad) * p.channels + channel];
    var g = ends[slot(group.z, group.y, channel) + quad * p.channels];
    for (var t = 0u; t < count; t++) {
      let at = (row + t) * p.channels + channel;
      let d = step_size(f32(delta[at]) + offset);
      h = exp(d * rate) * h + d * f32(x[at]) * packed[(row + t) * 2u * quads + quad];
      dc[t] += f32(dy[at]) * h;
    }
    for (var t = count; t > 0u; t--) {
      let at = (row + t - 1u) * p.channels + channel;
      let d = step_size(f32(delta[at]) + offset);
      let e = g + f32(dy[at]) * packed[((row + t - 1u) * 2u + 1u) * quads + quad];
      db[t - 1u] += d * f32(x[at]) * e;
      g = exp(d * rate) * e;
    }
  }
  for (var t = 0u; t < count; t++) {
    let at = (slice * p.rows + row + t) * 2u * quads + quad;
    token_sums[at] = db[t];
    token_sums[at + quads] = dc[t];
  }
}
