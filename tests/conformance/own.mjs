// Tests of our own in the suite's form, for what its edition on the npm registry does not ask: RFC 9213, RFC 5861, must-understand, and parts put together.

const second = { expected_type: 'cached' }
const fetched = { expected_type: 'not_cached' }

function pair (id, name, headers, then, first = {}) {
  return { id: `own-${id}`, name, requests: [{ response_headers: headers, setup: true, pause_after: true, ...first }, { ...then }] }
}

const cdn = (value, ...more) => [['CDN-Cache-Control', value, false], ...more]
const part = (range, body, tag = '"v1"') => ({
  response_status: [206, 'Partial Content'],
  response_headers: [['Cache-Control', 'max-age=3600'], ['ETag', tag], ['Content-Range', range, false]],
  response_body: body
})

export default {
  id: 'own',
  name: 'What later standards say',
  tests: [
    pair('cdn-max-age', 'CDN-Cache-Control gives a lifetime', cdn('max-age=3600'), second),
    pair('cdn-over-no-store', 'CDN-Cache-Control comes before Cache-Control: no-store', cdn('max-age=3600', ['Cache-Control', 'no-store']), second),
    pair('cdn-over-expires', 'CDN-Cache-Control comes before Expires', cdn('max-age=3600', ['Expires', -10000], ['Date', 0]), second),
    pair('cdn-short', 'A short CDN-Cache-Control comes before a long Cache-Control', cdn('max-age=1', ['Cache-Control', 'max-age=3600']), fetched),
    pair('cdn-no-store', 'CDN-Cache-Control: no-store comes before a long Cache-Control', cdn('no-store', ['Cache-Control', 'max-age=3600']), fetched),
    pair('cdn-private', 'CDN-Cache-Control: private comes before a long Cache-Control', cdn('private', ['Cache-Control', 'max-age=3600']), fetched),
    pair('cdn-age', 'Age counts against CDN-Cache-Control', cdn('max-age=3600', ['Age', '7200']), fetched),
    pair('cdn-invalid', 'A CDN-Cache-Control that is no structured field is not there', cdn('max-age=3600, &&&', ['Cache-Control', 'no-store']), fetched),
    pair('cdn-wrong-type', 'A lifetime that is a string is none', cdn('max-age="3600"', ['Cache-Control', 'no-store']), fetched),
    pair('swr', 'A stale response is used while it is refreshed', [['Cache-Control', 'max-age=1, stale-while-revalidate=3600'], ['ETag', '"a"']], second),
    pair('must-understand', 'A known status with must-understand is stored in spite of no-store', [['Cache-Control', 'max-age=3600, no-store, must-understand']], second),
    pair('must-understand-599', 'An unknown status with must-understand is not stored', [['Cache-Control', 'max-age=3600, must-understand']], { ...fetched, response_status: [599, 'Unknown'] }, { response_status: [599, 'Unknown'] }),
    {
      id: 'own-swr-window',
      name: 'A stale response is not used after its time',
      requests: [
        { response_headers: [['Cache-Control', 'max-age=1, stale-while-revalidate=1']], setup: true, pause_after: true },
        fetched
      ]
    },
    {
      id: 'own-part-completed',
      name: 'A part is completed by what it lacks, if that is of the same version',
      requests: [
        { ...part('bytes 0-4/10', '01234'), request_headers: [['Range', 'bytes=0-4']], setup: true },
        {
          ...part('bytes 5-9/10', '56789'),
          expected_request_headers: [['Range', 'bytes=5-'], ['If-Range', '"v1"']],
          expected_status: 200,
          expected_response_text: '0123456789'
        },
        { expected_type: 'cached', expected_response_text: '0123456789' }
      ]
    },
    {
      id: 'own-parts-joined',
      name: 'Parts that touch answer a range over both',
      requests: [
        { ...part('bytes 0-4/20', '01234'), request_headers: [['Range', 'bytes=0-4']], setup: true },
        { ...part('bytes 5-9/20', '56789'), request_headers: [['Range', 'bytes=5-9']], setup: true },
        { request_headers: [['Range', 'bytes=3-6']], expected_type: 'cached', expected_status: 206, expected_response_text: '3456' }
      ]
    },
    {
      id: 'own-parts-of-two-versions',
      name: 'Parts of two versions are not put together',
      requests: [
        { ...part('bytes 0-4/20', '01234'), request_headers: [['Range', 'bytes=0-4']], setup: true },
        { ...part('bytes 5-9/20', '56789', '"v2"'), request_headers: [['Range', 'bytes=5-9']], setup: true },
        { ...part('bytes 3-6/20', 'defg', '"v2"'), request_headers: [['Range', 'bytes=3-6']], expected_type: 'not_cached', expected_status: 206, expected_response_text: 'defg' }
      ]
    }
  ]
}
