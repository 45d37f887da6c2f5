// The gradients of selective-scan.wgsl that a channel owns, dx, ddelta, and its share of dA, dD and dbias; then the last
// stage of every sum. Formulas, names and the order of the passes: selective-scan-backward.wgsl.
// A lane walks its chunk once for each four states: forward from the boundary, keeping every h_{t-1}, and back.
import package::lib::elem::elem;
import package::lib::grid::flat_workgroup;
import package::lib::softplus::softplus;
import package::lib::softplus::sigmoid;

struct Params {
  tokens: u32, channels: u32, n: u32, rows: u32,
  slots: u32, chunks: u32, softplus: u32, slices: u32, has_skip: u32, has_bias: u32,
}
override quads: u32 = 4;
override chunk: u32 = 64;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> delta: array<elem>;
@group(0) @binding(3) var<storage, read> dy: array<elem>;
@group(0) @binding(4) var<storage, read> packed: array<vec4f>;
@group(0) @binding(5) var<storage, read> boundaries: array<vec4f>; // (batch, slots, quads, channels), of the forward pass
@group(0) @binding(6) var<storage, read_write> slopes: array<vec4f>; // (batch, chunks, quads + 1, channels): in, out
@group(0) @binding(7) var<storage, read_write> dx: array<elem>;
@group(0) @binding(8) var<storage, read_write> ddelta: array<elem>;

fn of_channel(quad: u32, channel: u32) -> vec4f { return packed[p.rows * 2u * quads + quad * p.channels + channel]; }

@compute @workgroup_size(64)
fn backward_channels(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let channel = group.x * 64u + lane;
  if (channel >= p.channels) { return; }
  let first = group.y * chunk;
  let count = min(chunk, p.tokens - first);
  let row = group.z * p.tokens + first;
  let last = of_channel(quads, channel);
  let slot = (group.z * p.chunks + group.y) * (quads + 1u) * p.channels + channel;
  var steps: array<f32, chunk>;
  var along_x: array<f32, chunk>; // B_t · e_t
  var along_step: array<f32, chunk>; // dd_t
  var before: array<vec4f, chunk>; // h_{t-1}
  for (var t = 0u; t < count; t++) {
    let v = f32(delta[(row + t) * p.channels + channel]) + last.y;
    if (p.softplus == 0u) { steps[t] = v; } else { steps[t] = softplus(v); }
  }
  for (var quad = 0u; quad < quads; quad++) {
    let rate = of_channel(quad, channel);
    var h = boundaries[((group.z * p.slots + group.y) * quads + quad) * p.channels + channel];
    for (var t = 0u; t < count; t++) {
      before[t] = h;
      let u = steps[t] * f32(x[(row + t) * p.channels + channel]);
      h = exp(steps[t] * rate) * h + u * packed[(row + t) * 2u * quads + quad];
    }
    var g = slopes[slot + quad * p.channels];
    var drate = vec4f();
    for (var i = count; i > 0u; i--) {
      let t = i - 1u;
      let at = (row + t) * p.channels + channel;
      let input = packed[(row + t) * 2u * quads + quad];
      let e = g + f32(dy[at]) * packed[((row + t) * 2u + 1u) * quads + quad];
      let decay = exp(steps[t] * rate);
      let through = decay * before[t] * e;
      along_x[t] += dot(input, e);
      along_step[t] += dot(rate, through) + f32(x[at]) * dot(input, e);
      drate += steps[t] * through;
      g = decay * e;
    }
    slopes[slot + quad * p.channels] = drate;
  }
  var skip_sum = 0.0;
  var bias_sum = 0.0;
  for (var t = 0u; t < count; t++) {
    let at = (row + t) * p.channels + channel;
    var slope = along_step[t];
    if (p.softplus != 0u) { slope *= sigmoid(f32(delta[at]) + last.y); }
    dx[at] = elem(steps[t] * along_x[t] + last.x * f32(dy[at]));
    ddelta[at] = elem(slope);
    skip_sum += f32(dy[at]) * f32(x[at]);
    bias_sum += slope;
  }
  slopes[slot + quads * p.channels] = vec4f(skip_sum, bias_sum, 0.0, 0.0);
}

// dB and dC: the sum over the slices of channels
@group(0) @binding(1) var<storage, read> token_sums: array<vec4f>; // (slices, batch, tokens, 2, quads)
@group(0) @binding(2) var<storage, read_write> db: array<elem>;
@group(0) @binding(3) var<storage, read_write> dc: array<elem>;

@compute @workgroup_size(64)
fn token_gradients(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u,
                   @builtin(local_invocation_index) lane: u32) {
  let i = flat_workgroup(group, groups) * 64u + lane;
  let size = p.rows * 2u * quads;
  if (i >= size) { return; }
  var sum = vec4f();
  for (var slice = 0u; slice < p.slices; slice++) { sum += token_sums[slice * size + i]; }
  let first = (i % quads) * 4u;
  for (var k = 0u; k < min(4u, p.n - first); k++) {
    let at = i / (2u * quads) * p.n + first + k;
    if (i % (2u * quads) < quads) { db[at] = elem(sum[k]); } else { dc[at] = elem(sum[k]); }
  }
}

// dA, dD and dbias: the sum over batch and chunks
@group(0) @binding(1) var<storage, read> channel_sums: array<vec4f>; // (batch · chunks, quads + 1, channels)
@group(0) @binding(2) var<storage, read_write> da: array<elem>;
@group(0) @binding(3) var<storage, read_write> dskip: array<elem>; // written only where has_skip is 1
@group(0) @binding(4) var<storage, read_write> dbias: array<elem>; // written only where has_bias is 1

@compute @workgroup_size(64)
fn channel_gradients(@builtin(global_invocation_id) id: vec3u) {
  let channel = id.x;
  let quad = id.y;
  if (channel >= p.channels) { return; }
  var sum = vec4f();
  for (var part = 0u; part < p.rows / p.tokens * p.chunks; part++) {
    sum += channel_sums[(part * (quads + 1u) + quad) * p.channels + channel];
  }
  if (quad < quads) {
    for (var k = 0u; k < min(4u, p.n - quad * 4u); k++) { da[channel * p.n + quad * 4u + k] = elem(sum[k]); }
  } else {
    if (p.has_skip != 0u) { dskip[channel] = elem(sum.x); }
    if (p.has_bias != 0u) { dbias[channel] = elem(sum.y); }
  }
}
