import { BundleError } from '../core/errors.ts'
import { sha256 } from './files.ts'

/** Signature schemes: ECDSA over P-256 with SHA-256, and Ed25519. */
export const schemes = ['ecdsa-p256', 'ed25519'] as const

/** A signature scheme. */
export type Scheme = (typeof schemes)[number]

/** A key that signs or verifies. */
export interface Key {
  readonly scheme: Scheme
  readonly key: CryptoKey
  /** sha256 of the public key's PEM text, in hex: how a signature names its key. */
  readonly hint: string
}

const parameters = {
  'ecdsa-p256': { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' },
  ed25519: { name: 'Ed25519' },
} as const

/** Makes a key pair. @returns PEM texts: PKCS #8 of the private key, SPKI of the public one. */
export async function newKeyPair(scheme: Scheme = 'ecdsa-p256'): Promise<{ privatePem: string; publicPem: string }> {
  const pair = (await crypto.subtle.generateKey(parameters[scheme], true, ['sign', 'verify'])) as CryptoKeyPair
  return {
    privatePem: pem('PRIVATE KEY', await crypto.subtle.exportKey('pkcs8', pair.privateKey)),
    publicPem: pem('PUBLIC KEY', await crypto.subtle.exportKey('spki', pair.publicKey)),
  }
}

/** Reads a private key from its PEM text. @throws SyntaxError when it is no PKCS #8 of a supported scheme. */
export async function readPrivateKey(text: string): Promise<Key> {
  const der = fromPem(text, 'PRIVATE KEY')
  for (const scheme of schemes) {
    const key = await crypto.subtle.importKey('pkcs8', der, parameters[scheme], true, ['sign']).catch(() => undefined)
    if (!key) continue
    // Only the public half names the key.
    const { kty, crv, x, y } = await crypto.subtle.exportKey('jwk', key)
    const half = await crypto.subtle.importKey('jwk', { kty, crv, x, y }, parameters[scheme], true, ['verify'])
    return { scheme, key, hint: await hintOf(half) }
  }
  throw new SyntaxError('Cannot read the private key: it must be PKCS #8 of ECDSA P-256 or Ed25519')
}

/** Reads a public key from its PEM text. @throws SyntaxError when it is no SPKI of a supported scheme. */
export async function readPublicKey(text: string): Promise<Key> {
  const der = fromPem(text, 'PUBLIC KEY')
  for (const scheme of schemes) {
    const key = await crypto.subtle.importKey('spki', der, parameters[scheme], true, ['verify']).catch(() => undefined)
    if (key) return { scheme, key, hint: await hintOf(key) }
  }
  throw new SyntaxError('Cannot read the public key: it must be SPKI of ECDSA P-256 or Ed25519')
}

async function hintOf(key: CryptoKey): Promise<string> {
  return sha256(pem('PUBLIC KEY', await crypto.subtle.exportKey('spki', key)))
}

/** Signs bytes; ECDSA in ASN.1 DER, as other programs expect it. */
export async function sign({ scheme, key }: Key, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  const signature = new Uint8Array(await crypto.subtle.sign(parameters[scheme], key, bytes))
  return scheme === 'ed25519' ? signature : toDer(signature)
}

/** Whether `signature` is the key's over `bytes`. */
export async function isSignedBy(
  { scheme, key }: Key,
  signature: Uint8Array<ArrayBuffer>,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<boolean> {
  const raw = scheme === 'ed25519' ? signature : fromDer(signature)
  return raw !== undefined && crypto.subtle.verify(parameters[scheme], key, raw, bytes)
}

function pem(label: string, der: ArrayBuffer): string {
  const lines = toBase64(new Uint8Array(der)).replace(/.{64}(?=.)/g, '$&\n')
  return `-----BEGIN ${label}-----\n${lines}\n-----END ${label}-----\n`
}

function fromPem(text: string, label: string): Uint8Array<ArrayBuffer> {
  const match = new RegExp(`^\\s*-----BEGIN ${label}-----([A-Za-z0-9+/=\\s]+)-----END ${label}-----\\s*$`).exec(text)
  try {
    if (match) return fromBase64(match[1].replaceAll(/\s/g, ''))
  } catch {
    // The sentence below says it.
  }
  throw new SyntaxError(`Cannot read the key: it is no PEM text of a ${label}`)
}

/** Bytes of a base64 text. @throws BundleError when it is none. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  } catch {
    throw new BundleError('a base64 text is not valid')
  }
}

/** Base64 of bytes. */
export function toBase64(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}

/** r and s, 32 bytes each, as SEQUENCE { INTEGER r, INTEGER s }. */
function toDer(raw: Uint8Array): Uint8Array<ArrayBuffer> {
  const integers = [raw.subarray(0, 32), raw.subarray(32)].flatMap((part) => {
    const first = part.findIndex((byte) => byte !== 0)
    const digits = first < 0 ? [0] : [...part.subarray(first)]
    if (digits[0] > 127) digits.unshift(0)
    return [2, digits.length, ...digits]
  })
  return Uint8Array.of(0x30, integers.length, ...integers)
}

/** The reverse of {@link toDer}, or nothing when the bytes are not exactly that. */
function fromDer(der: Uint8Array): Uint8Array<ArrayBuffer> | undefined {
  const raw = new Uint8Array(64)
  let at = 2
  for (const end of [32, 64]) {
    const length = der[at + 1]
    const digits = der.subarray(at + 2, at + 2 + length)
    const trimmed = digits[0] === 0 ? digits.subarray(1) : digits
    if (der[at] !== 2 || !(length > 0) || digits.length !== length || trimmed.length > 32) return undefined
    raw.set(trimmed, end - trimmed.length)
    at += 2 + length
  }
  const again = toDer(raw)
  return again.length === der.length && again.every((byte, i) => byte === der[i]) ? raw : undefined
}
