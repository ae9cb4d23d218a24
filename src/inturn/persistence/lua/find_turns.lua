-- find_turns: the records of a session's turns, in the order of their fields.
--
-- KEYS   1 session (hash)
-- ARGV   1 prefix  2 field to begin after  3 records wanted
-- reply  { record, ... }

local fields = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 5) == 'turn:' and field > ARGV[2] then
    fields[#fields + 1] = field
  end
end
table.sort(fields)
local found = {}
for i = 1, math.min(#fields, tonumber(ARGV[3])) do
  found[i] = redis.call('HGET', KEYS[1], fields[i])
end
return found
