import * as z from 'zod'
import { BundleError, messageOf } from '../core/errors.ts'
import { canonicalJson } from './canonical-json.ts'
import { sha256 } from './files.ts'
import { fromBase64, isSignedBy, type Key, sign, toBase64 } from './keys.ts'
import { bundleFolder, manifestPath, signaturePath } from './layout.ts'
import { type Manifest, writeManifest } from './manifest.ts'

// The form of OpenSSF model signing 1.0: an in-toto statement in a DSSE envelope in a Sigstore bundle, so that
// `model_signing verify key` accepts what is signed here.
const mediaType = 'application/vnd.dev.sigstore.bundle.v0.3+json'
const payloadType = 'application/vnd.in-toto+json'

const schema = z.strictObject({
  mediaType: z.literal(mediaType),
  verificationMaterial: z.strictObject({ publicKey: z.strictObject({ hint: z.string() }) }),
  dsseEnvelope: z.strictObject({
    payload: z.base64(),
    payloadType: z.literal(payloadType),
    signatures: z.array(z.strictObject({ sig: z.base64(), keyid: z.literal('').optional() })).length(1),
  }),
})

/**
 * What is signed: the hashes of all files of the bundle and of its manifest.
 * @see model_signing 1.1, _signing/signing.py `Payload`; in-toto Statement v1.
 */
export async function statementOf(manifest: Manifest): Promise<object> {
  const digests = Object.entries(manifest.files).map(([name, file]) => ({ name, digest: file.sha256 }))
  digests.push({ name: manifestPath, digest: await sha256(writeManifest(manifest)) })
  digests.sort((a, b) => (a.name < b.name ? -1 : 1))
  const all = Uint8Array.from(
    digests.flatMap(({ digest }) => digest.match(/../g)!.map((hex) => Number.parseInt(hex, 16))),
  )
  return {
    _type: 'https://in-toto.io/Statement/v1',
    subject: [{ name: bundleFolder, digest: { sha256: await sha256(all) } }],
    predicateType: 'https://model_signing/signature/v1.0',
    predicate: {
      serialization: { method: 'files', hash_type: 'sha256', allow_symlinks: false, ignore_paths: [signaturePath] },
      resources: digests.map(({ name, digest }) => ({ name, algorithm: 'sha256', digest })),
    },
  }
}

/** manifest.sig.json of a manifest. Ed25519 gives the same bytes each time, ECDSA does not. */
export async function signManifest(manifest: Manifest, key: Key): Promise<Uint8Array<ArrayBuffer>> {
  const payload = new TextEncoder().encode(canonicalJson(await statementOf(manifest)))
  const signature = await sign(key, preAuthentication(payload))
  const envelope = {
    mediaType,
    verificationMaterial: { publicKey: { hint: key.hint } },
    dsseEnvelope: { payload: toBase64(payload), payloadType, signatures: [{ sig: toBase64(signature) }] },
  }
  return new TextEncoder().encode(`${canonicalJson(envelope)}\n`)
}

/**
 * Checks manifest.sig.json: that it states this manifest's hashes and, given a key, that the key signed it.
 * @throws BundleError with the reason.
 */
export async function checkSignature(bytes: Uint8Array, manifest: Manifest, key?: Key): Promise<void> {
  const fault = (reason: string) => new BundleError(`${signaturePath}: ${reason}`)
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch (error) {
    throw fault(`it is not valid JSON (${messageOf(error)})`)
  }
  const result = schema.safeParse(json)
  if (!result.success) throw fault(`${result.error.issues[0].path.join('.')}: ${result.error.issues[0].message}`)
  const { verificationMaterial, dsseEnvelope } = result.data
  const payload = fromBase64(dsseEnvelope.payload)
  if (new TextDecoder().decode(payload) !== canonicalJson(await statementOf(manifest)))
    throw fault('it was made for another manifest')
  if (!key) return
  if (verificationMaterial.publicKey.hint !== key.hint) throw fault('it was made with another key')
  if (!(await isSignedBy(key, fromBase64(dsseEnvelope.signatures[0].sig), preAuthentication(payload))))
    throw fault('the signature is not the key’s')
}

/** What a DSSE signature is over. @see secure-systems-lab/dsse, protocol.md, PAE. */
function preAuthentication(payload: Uint8Array): Uint8Array<ArrayBuffer> {
  const head = new TextEncoder().encode(`DSSEv1 ${payloadType.length} ${payloadType} ${payload.length} `)
  const bytes = new Uint8Array(head.length + payload.length)
  bytes.set(head)
  bytes.set(payload, head.length)
  return bytes
}
