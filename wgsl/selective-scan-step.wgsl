// One token of selective-scan.wgsl: h = exp(d A) h + d B x,  y = C · h + D x,  h being overwritten.
//   x, y (batch, channels)   packed as selective-scan.wgsl packs it, for one token a batch row   h (batch, channels, n)
// One invocation a channel of a batch row.
import package::lib::elem::elem;
import package::lib::softplus::softplus;

struct Params { channels: u32, n: u32, rows: u32, softplus: u32 }
override quads: u32 = 4;

@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<elem>;
@group(0) @binding(2) var<storage, read> delta: array<elem>;
@group(0) @binding(3) var<storage, read> packed: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> state: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<elem>;

@compute @workgroup_size(64)
fn forward(@builtin(global_invocation_id) id: vec3u) {
  let channel = id.x;
  if (channel >= p.channels) { return; }
  let at = id.y * p.channels + channel;
  let columns = p.rows * 2u * quads + channel;
  let last = packed[columns + quads * p.channels];
  let value = f32(x[at]);
  var d = f32(delta[at]) + last.y;
  if (p.softplus != 0u) { d = softplus(d); }
  var sum = last.x * value;
  for (var i = 0u; i < p.n; i++) {
    let quad = i / 4u;
    let rate = packed[columns + quad * p.channels][i % 4u];
    let h = exp(d * rate) * state[at * p.n + i] + d * value * packed[id.y * 2u * quads + quad][i % 4u];
    state[at * p.n + i] = h;
    sum += h * packed[(id.y * 2u + 1u) * quads + quad][i % 4u];
  }
  y[at] = elem(sum);
}
