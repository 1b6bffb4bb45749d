// Tests of our own in the suite's form, for what its edition on the npm registry does not ask or asks otherwise than the later editions: RFC 9213, RFC 5861, must-understand,
// dates and ages that are none, and parts put together.

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
    pair('cdn-zero', 'CDN-Cache-Control: max-age=0 comes before a date in the future', cdn('max-age=0', ['Expires', 10000], ['Date', 0]), fetched),
    pair('cdn-no-cache', 'CDN-Cache-Control: no-cache comes before a long Cache-Control', cdn('no-cache', ['Cache-Control', 'max-age=3600']), fetched),
    pair('cdn-large', 'A lifetime that no counter of 32 bits can hold is a long one', cdn('max-age=99999999999'), second),
    pair('cdn-unknown', 'Unknown directives say nothing', cdn('strange, max-age=3600, other=1.5'), second),
    pair('cdn-expires-invalid', 'CDN-Cache-Control comes before an Expires that is no date', cdn('max-age=3600', ['Expires', 'soon', false], ['Date', 0]), second),
    ...['2147483647', '2147483648', '4294967297', '99999999999999999999'].map(age =>
      pair(`age-${age}`, `An Age of ${age} is a great one`, [['Cache-Control', 'max-age=3600'], ['Date', 0], ['Age', age, false]], fetched)),
    ...[
      ['utc', 'Tue, 05 Jan 2100 10:00:00 UTC'],
      ['offset', 'Tue, 05 Jan 2100 10:00:00 +0000'],
      ['short-year', 'Tue, 05 Jan 99 10:00:00 GMT'],
      ['no-comma', 'Tue 05 Jan 2100 10:00:00 GMT'],
      ['spaces', 'Tue, 05  Jan 2100 10:00:00 GMT'],
      ['dashes', 'Tue, 05-Jan-2100 10:00:00 GMT'],
      ['periods', 'Tue, 05 Jan 2100 10.00.00 GMT'],
      ['short-hour', 'Tue, 05 Jan 2100 1:00:00 GMT'],
      ['no-such-day', 'Wed, 31 Feb 2100 10:00:00 GMT']
    ].map(([id, date]) => pair(`expires-${id}`, `${date} is no date`, [['Expires', date, false], ['Date', 0]], fetched)),
    pair('expires-differ', 'Two dates that differ are none', [['Expires', 'Tue, 05 Jan 2100 10:00:00 GMT', false], ['Expires', 'Tue, 05 Jan 2100 11:00:00 GMT', false], ['Date', 0]], fetched),
    ...[
      ['fixed', 'Tue, 05 Jan 2100 10:00:00 GMT'],
      ['rfc850', 'Tuesday, 05-Jan-60 10:00:00 GMT'],
      ['asctime', 'Tue Jan  5 10:00:00 2100'],
      ['case', 'TUE, 05 jan 2100 10:00:00 gmt'],
      ['weekday', 'Sun, 05 Jan 2100 10:00:00 GMT']
    ].map(([id, date]) => pair(`expires-${id}`, `${date} is a date`, [['Expires', date, false], ['Date', 0]], second)),
    pair('date-kept', 'A hit has the Date and the Expires of the stored response', [['Expires', 7200], ['Date', -60]], { ...second, expected_response_headers: [['Date', -60], ['Expires', 7200]] }),
    pair('became-stale', 'A response is not used after its time', [['Cache-Control', 'max-age=2']], fetched),
    pair('listed', 'Fields that Connection names are not stored, others beside them are', [['Connection', 'x-one', false], ['X-One', '1', false], ['X-Two', '2'], ['Cache-Control', 'max-age=3600']],
      { ...second, expected_response_headers: [['X-Two', '2']], expected_response_headers_missing: ['x-one'] }),
    pair('range-fields', 'A range of a stored response has its fields', [['Cache-Control', 'max-age=3600'], ['X-One', '1']],
      { ...second, request_headers: [['Range', 'bytes=0-1']], expected_status: 206, expected_response_text: '01', expected_response_headers: [['X-One', '1']] }, { response_body: '0123456789' }),
    pair('swr', 'A stale response is used while it is refreshed', [['Cache-Control', 'max-age=1, stale-while-revalidate=3600'], ['ETag', '"a"']], second),
    pair('must-understand', 'A known status with must-understand is stored in spite of no-store', [['Cache-Control', 'max-age=3600, no-store, must-understand']], second),
    pair('must-understand-599-no-store', 'An unknown status with must-understand and no-store is not stored', [['Cache-Control', 'max-age=3600, no-store, must-understand']], { ...fetched, response_status: [599, 'Unknown'] }, { response_status: [599, 'Unknown'] }),
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
      id: 'own-swr-refreshed',
      name: 'What a refresh in the background brings holds from then on, also where it ends the use of stale responses',
      requests: [
        { response_headers: [['Cache-Control', 'max-age=1, stale-while-revalidate=3600'], ['ETag', '"a"']], setup: true, pause_after: true },
        { response_headers: [['Cache-Control', 'no-cache', false], ['ETag', '"b"', false]], setup: true, pause_after: true, expected_type: 'cached' },
        { expected_response_headers: [['client-request-count', '3']] }
      ]
    },
    {
      id: 'own-no-store-later',
      name: 'What is stored and fresh is used, whatever the upstream would say by now',
      requests: [
        { response_headers: [['Cache-Control', 'max-age=3600'], ['X-One', '1']], setup: true, pause_after: true },
        { response_headers: [['Cache-Control', 'no-store, max-age=0'], ['X-One', '2']], setup: true, pause_after: true },
        { expected_type: 'cached', expected_response_headers: [['X-One', '1']] }
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
