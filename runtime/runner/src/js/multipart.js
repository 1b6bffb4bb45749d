// Bodies that are forms, parsed: application/x-www-form-urlencoded and multipart/form-data (RFC 7578). Input is hostile.

import { core } from "ext:core/mod.js";
import { FormData } from "ext:selvedge/formdata.js";

const { File } = core.loadExtScript("ext:deno_web/09_file.js");
const { URLSearchParams } = core.loadExtScript("ext:deno_web/00_url.js");

// Parts of one form, and pairs of an urlencoded one: beyond it the form is refused. Rust makes all pairs before JavaScript sees one, in memory
// that is nobody's.
const PARTS_MAX = 10_000;
// RFC 2046, section 5.1.1: at most 70 characters, of ASCII that is printed.
const BOUNDARY = /^[\x20-\x7e]{1,70}$/;

export function parseForm(bytes, type) {
  const [essence, ...parameters] = (type ?? "").split(";");
  switch (essence.trim().toLowerCase()) {
    case "application/x-www-form-urlencoded": {
      const form = new FormData();
      checkPairs(bytes);
      for (const [name, value] of new URLSearchParams(core.decode(bytes))) form.append(name, value);
      return form;
    }
    case "multipart/form-data": {
      const boundary = parameter(parameters.join(";"), "boundary");
      if (boundary === undefined || !BOUNDARY.test(boundary)) {
        throw new TypeError("The form's Content-Type has no boundary of 1 to 70 printable characters.");
      }
      return parseMultipart(bytes, boundary);
    }
    default:
      throw new TypeError(
        `Unrecognized Content-Type header value: ${type ?? "none"}. FormData can only parse the following MIME types: ` +
          "multipart/form-data, application/x-www-form-urlencoded",
      );
  }
}

function checkPairs(bytes) {
  let pairs = 1;
  for (let i = bytes.indexOf(AMPERSAND); i >= 0; i = bytes.indexOf(AMPERSAND, i + 1)) {
    if (++pairs > PARTS_MAX) throw new TypeError(`The form has more than ${PARTS_MAX} pairs.`);
  }
}

// The value of a parameter, quoted or not.
function parameter(text, wanted) {
  const pattern = /(?:^|;)\s*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;]*))/g;
  for (const [, name, quoted, plain] of text.matchAll(pattern)) {
    if (name.toLowerCase() === wanted) return quoted !== undefined ? quoted.replace(/\\(.)/g, "$1") : plain.trim();
  }
  return undefined;
}

const CR = 13;
const LF = 10;
const DASH = 45;
const AMPERSAND = 38;

// Whether `needle` stands at an index of `bytes`.
function standsAt(bytes, needle, index) {
  let j = 0;
  while (j < needle.length && bytes[index + j] === needle[j]) j++;
  return j === needle.length;
}

// The index of `needle` in `bytes` at or after `from`; -1 if there is none. What is looked for begins with CR, and has at most one more: what
// was compared is not compared again and again, whatever a client sends.
function find(bytes, needle, from) {
  for (let i = bytes.indexOf(CR, from); i >= 0; i = bytes.indexOf(CR, i + 1)) {
    if (standsAt(bytes, needle, i)) return i;
  }
  return -1;
}

function malformed() {
  return new TypeError("The multipart form is malformed.");
}

function parseMultipart(bytes, boundary) {
  const form = new FormData();
  const delimiter = core.encode(`\r\n--${boundary}`);
  const first = delimiter.subarray(2);
  const preamble = standsAt(bytes, first, 0) ? -2 : find(bytes, delimiter, 0);
  if (preamble === -1) throw malformed();
  let position = preamble + delimiter.length;
  for (let parts = 0;; parts++) {
    if (parts > PARTS_MAX) throw new TypeError(`The form has more than ${PARTS_MAX} parts.`);
    if (bytes[position] === DASH && bytes[position + 1] === DASH) return form;
    while (bytes[position] === 32 || bytes[position] === 9) position++;
    if (bytes[position] !== CR || bytes[position + 1] !== LF) throw malformed();
    position += 2;
    const next = find(bytes, delimiter, position - 2);
    if (next < 0) throw malformed();
    appendPart(form, bytes, position, next);
    position = next + delimiter.length;
  }
}

const BLANK_LINE = core.encode("\r\n\r\n");

function appendPart(form, bytes, start, end) {
  const blank = find(bytes.subarray(0, end), BLANK_LINE, start - 2);
  if (blank < 0) throw malformed();
  const head = core.decode(bytes.subarray(start, Math.max(blank, start)));
  const content = bytes.subarray(blank + BLANK_LINE.length, end);
  let disposition;
  let type = "text/plain";
  for (const line of head.split("\r\n")) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).trim().toLowerCase();
    if (name === "content-disposition") disposition = line.slice(colon + 1).trim();
    if (name === "content-type") type = line.slice(colon + 1).trim();
  }
  if (disposition === undefined || !/^form-data\s*(;|$)/i.test(disposition)) throw malformed();
  const parameters = disposition.slice("form-data".length);
  const name = parameter(parameters, "name");
  if (name === undefined) throw malformed();
  const filename = parameter(parameters, "filename");
  const unescape = (text) => text.replace(/%0D/gi, "\r").replace(/%0A/gi, "\n").replace(/%22/g, '"');
  if (filename === undefined) form.append(unescape(name), core.decode(content));
  else form.append(unescape(name), new File([content], unescape(filename), { type }));
}
