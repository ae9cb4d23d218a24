-- delete: sessions with their messages and turns, and every name they have in an index.
--
-- ARGV   1 prefix  2... for each session: ID, and the version it must have, or '' for any
-- reply  { ID, ... } of the sessions that are gone by this call
--
-- Invariants: a session that has another version is left alone; without one, the messages that outlived
-- their session go too.

local gone = {}
for i = 2, #ARGV, 2 do
  local id, version = ARGV[i], ARGV[i + 1]
  local session, messages = prefix .. 'session:' .. id, prefix .. 'messages:' .. id
  local held = redis.call('HMGET', session, 'version', 'at', 'indexes')
  if version == '' or held[1] == version then
    for _, index in ipairs(split(held[3])) do
      redis.call('ZREM', index, held[2] .. id)
    end
    local bounds = redis.call('HMGET', messages, 'first', 'last')
    for start = tonumber(bounds[1] or 1), tonumber(bounds[2] or 0), 500 do
      for offset, stored in ipairs(numbered(messages, start, start + 499)) do
        local user, name = string.match(stored, '^([^%z]*)%z([^%z]*)%z')
        redis.call('HDEL', prefix .. 'message-ids', string.sub(name, 27))
        if user ~= '' then
          local number = string.format('%d', start + offset - 1)
          redis.call('ZREM', prefix .. 'user-messages:' .. user, name .. '\0' .. id .. '\0' .. number)
        end
      end
    end
    redis.call('UNLINK', session, messages)
    if held[1] then
      gone[#gone + 1] = id
    end
  end
end
return gone
