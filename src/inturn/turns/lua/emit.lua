-- emit: append a piece of a reply's text to its turn's stream, and hear whether the turn is to stop.
--
-- KEYS   1 session (hash)  2 the turn's stream
-- ARGV   1 owner's token  2 ID of the entry, <fence>-<number>  3 text  4 marks: 'r' it begins the reply
--        anew, 'e' it is the last, both, or ''  5 the most entries to keep, about  6 how long to keep them, ms
-- reply  { 1, turn ID to stop or '' }  it is in the stream
--        { 0, '' }                     lost: somebody else drives the session, or nobody; nothing was written
--
-- Invariants: only the owner's text reaches a reader, and it does so once and in order: an ID that is not
-- above the last one was written before (a lost answer, asked again) and changes nothing. Whatever is
-- written expires, so a stream keeps no session from being idle.

local held = redis.call('HMGET', KEYS[1], 'owner', 'stop')
if held[1] ~= ARGV[1] then
  return { 0, '' }
end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local known = false
if last then
  local last_fence, last_number = string.match(last[1], '(%d+)-(%d+)')
  local fence, number = string.match(ARGV[2], '(%d+)-(%d+)')
  last_fence, last_number = tonumber(last_fence), tonumber(last_number)
  fence, number = tonumber(fence), tonumber(number)
  known = fence < last_fence or (fence == last_fence and number <= last_number)
end
if not known then
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], ARGV[2], 'text', ARGV[3], 'marks', ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
return { 1, held[2] or '' }
